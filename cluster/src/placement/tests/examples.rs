//! Small clusters, looked at closely.
