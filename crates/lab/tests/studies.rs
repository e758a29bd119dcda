//! The studies as a user meets them: through the program, its files and its exit status.
#![cfg(feature = "studies")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// `layernorm study run ARGUMENTS --out OUT`, on so many threads.
fn study(out: &Path, threads: usize, arguments: &[&str]) -> Command {
    let threads = threads.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_layernorm"));
    command.args(["study", "run"]).args(arguments).args(["--threads", &threads, "--out"]).arg(out);
    command.env("RAYON_NUM_THREADS", threads);
    command
}

fn status(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The measurements of a run, without the time that they took.
fn measured(out: &Path, study: &str) -> Value {
    let path = out.join(study).join("tiny/result.json");
    let mut outcome: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let units = outcome["units"].as_array_mut().unwrap();
    assert!(!units.is_empty(), "the run measured something");
    units.iter_mut().for_each(|unit| drop(unit.as_object_mut().unwrap().remove("seconds")));
    outcome["units"].take()
}

#[test]
fn threads_change_no_bit() {
    for name in ["mnist", "neighbours"] {
        let run = |threads| {
            let out = tempfile::tempdir().unwrap();
            let output = study(out.path(), threads, &[name, "--budget", "tiny"]).output().unwrap();
            assert!(matches!(status(&output), Some(0 | 1)), "{}", stderr(&output));
            measured(out.path(), name)
        };
        assert_eq!(run(1), run(2), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_resume_goes_on_to_the_same_bits() {
    const ARGUMENTS: [&str; 5] = ["mnist", "--budget", "tiny", "--seeds", "30"];
    let out = tempfile::tempdir().unwrap();
    let running = study(out.path(), 2, &ARGUMENTS).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // As soon as one of its 240 units is finished, others are under way.
    let units = out.path().join("mnist/tiny/units");
    while std::fs::read_dir(&units).map_or(0, |files| files.count()) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let signal = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let output = running.wait_with_output().unwrap();
    assert_eq!(status(&output), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("--resume"), "{}", stderr(&output));
    let extensions = || std::fs::read_dir(&units).unwrap().map(|file| file.unwrap().path());
    assert!(extensions().any(|path| path.extension().is_some_and(|e| e == "state")), "a unit was under way");

    let again = study(out.path(), 2, &ARGUMENTS).output().unwrap();
    assert_eq!(status(&again), Some(2), "an unfinished run is not replaced by accident");
    let other =
        study(out.path(), 2, &["mnist", "--budget", "tiny", "--seeds", "29", "--resume"]).output().unwrap();
    assert_eq!(status(&other), Some(2));
    assert!(
        stderr(&other).contains("seeds: saved [0, 1") && stderr(&other).contains("asked"),
        "{}",
        stderr(&other)
    );

    let resumed = study(out.path(), 2, &[&ARGUMENTS[..], &["--resume"]].concat()).output().unwrap();
    assert!(matches!(status(&resumed), Some(0 | 1)), "{}", stderr(&resumed));
    let whole = tempfile::tempdir().unwrap();
    study(whole.path(), 2, &ARGUMENTS).output().unwrap();
    assert_eq!(measured(out.path(), "mnist"), measured(whole.path(), "mnist"));
}

#[test]
fn bad_use_is_told_in_one_line_with_status_2() {
    let out = tempfile::tempdir().unwrap();
    let nowhere = out.path().join("nowhere");
    let cases: [(&[&str], &str); 4] = [
        (&["nothing"], "mnist"),
        (&["mnist", "--resume"], "nothing to resume"),
        (&["mnist", "--data", nowhere.to_str().unwrap()], "train-images-idx3-ubyte"),
        (&["mnist", "--seeds", "0"], "0"),
    ];
    for (arguments, expected) in cases {
        let output = study(out.path(), 1, arguments).output().unwrap();
        assert_eq!(status(&output), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
        assert!(!out.path().join("mnist").exists(), "{arguments:?} left files");
    }
}

#[test]
fn the_list_states_every_rule_before_any_run() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_layernorm")).args(["study", "list", "--json"]).output().unwrap();
    let studies: Value = serde_json::from_slice(&output.stdout).unwrap();
    for study in studies.as_array().unwrap() {
        for claim in study["claims"].as_array().unwrap() {
            assert!(claim["rule"].as_str().unwrap().starts_with("Reproduced if"), "{claim}");
        }
    }
}

#[test]
fn the_report_stands_alone() {
    let runs = tempfile::tempdir().unwrap();
    let page = tempfile::tempdir().unwrap();
    let output = study(runs.path(), 2, &["neighbours", "--budget", "quick"]).output().unwrap();
    assert!(matches!(status(&output), Some(0 | 1)), "{}", stderr(&output));
    let output = Command::new(env!("CARGO_BIN_EXE_layernorm"))
        .args(["report", "--runs"])
        .arg(runs.path())
        .arg("--out")
        .arg(page.path())
        .output()
        .unwrap();
    assert!(matches!(status(&output), Some(0 | 1)), "{}", stderr(&output));
    let html = std::fs::read_to_string(page.path().join("index.html")).unwrap();
    for outside in ["http:", "https:", "<script", "<link", "@import", "url("] {
        assert!(!html.contains(outside), "the page refers to {outside}");
    }
    assert!(html.contains("</html>") && html.contains("<svg") && html.contains("data:image/png"));
    assert!(html.contains("layernorm study run neighbours --budget quick"), "the command that repeats it");
}
