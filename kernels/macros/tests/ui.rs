//! What `#[ringhold::actor]` accepts, and what it says about the rest.
//!
//! `TRYBUILD=overwrite cargo test -p ringhold-macros --test ui` writes the expected errors anew.

#[test]
fn what_is_outside_the_subset_is_refused_at_its_token() {
    trybuild::TestCases::new().compile_fail("tests/ui/fail/*.rs");
}

#[test]
fn what_is_inside_the_subset_compiles() {
    trybuild::TestCases::new().pass("tests/ui/pass/*.rs");
}
