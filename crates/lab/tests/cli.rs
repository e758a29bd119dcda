//! The command line itself.

mod common;

use common::{run, stdout};

#[test]
fn help_teaches() {
    for (arguments, says) in [
        (
            &["--help"][..],
            &["Examples:", "Exit status:", "apply", "check", "bench", "study", "report", "claims"][..],
        ),
        (&["check", "--help"], &["Examples:", "max(1, |x_hat|)", "2^-24"]),
        (&["bench", "--help"], &["Examples:", "best of"]),
        #[cfg(feature = "studies")]
        (&["study", "run", "--help"], &["Examples:", "--all", "--resume", "Exit status:"]),
        #[cfg(feature = "studies")]
        (&["claims", "--help"], &["Examples:", "docs/claims.md", "Exit status:"]),
        (&["apply", "--help"], &["Examples:", "x.shape[..axis]", "weight", "dbias"]),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        for says in says {
            assert!(stdout(&output).contains(says), "{arguments:?} does not say {says:?}");
        }
    }
    assert!(stdout(&run(&["--version"])).starts_with("layernorm "));
}

#[test]
fn bad_use_ends_with_2() {
    for arguments in [&["dance"][..], &["apply"], &["check", "--loudly"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

/// A build without the studies says so, and how to have them.
#[cfg(not(feature = "studies"))]
#[test]
fn without_studies_it_says_how_to_have_them() {
    for arguments in
        [&[][..], &["study", "run", "mnist", "--budget", "quick"], &["study"], &["report", "--json"]]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = common::stderr(&output);
        assert!(said.contains("cargo run --release"), "{arguments:?}: {said}");
    }
}
