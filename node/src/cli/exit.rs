//! How commands end.

pub const OK: u8 = 0;
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const UNREACHABLE: u8 = 3;
pub const REFUSED: u8 = 4;
pub const ACTOR: u8 = 5;
pub const DEADLINE: u8 = 6;

pub const HELP: &str = "Exit codes:
  0  done
  1  failed for another reason; the demo: something differed; storage verify: something is damaged;
     health: no; deadletter: some are left where they were
  2  arguments, a message or the configuration are wrong
  3  no node answers
  4  the node, or this client, refuses the other: certificate, version, actor types' layout
  5  the actor did not do it: it faulted, gave no reply, does not exist, or its device failed
  6  no reply came before the deadline";

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    /// What was being done, to what, what went wrong, what to do.
    pub message: String,
    /// More for programs.
    pub details: Option<serde_json::Value>,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), details: None }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(USAGE, message)
    }

    /// The code in a word, for programs.
    pub fn kind(&self) -> &'static str {
        match self.code {
            USAGE => "usage",
            UNREACHABLE => "unreachable",
            REFUSED => "refused",
            ACTOR => "actor",
            DEADLINE => "deadline",
            _ => "failed",
        }
    }
}

impl From<crate::config::Error> for Failure {
    fn from(error: crate::config::Error) -> Failure {
        let details = match &error {
            crate::config::Error::Invalid(invalid) => Some(serde_json::json!({"problems": invalid.problems})),
            _ => None,
        };
        Failure { code: USAGE, message: error.to_string(), details }
    }
}
