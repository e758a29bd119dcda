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

/// All studies.
fn names() -> Vec<String> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_layernorm")).args(["study", "list", "--json"]).output().unwrap();
    let studies: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    studies.iter().map(|study| study["name"].as_str().unwrap().to_owned()).collect()
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
    let run = |threads| {
        let out = tempfile::tempdir().unwrap();
        let output = study(out.path(), threads, &["--all", "--budget", "tiny"]).output().unwrap();
        assert!(matches!(status(&output), Some(0 | 1)), "{}", stderr(&output));
        out
    };
    let (one, two) = (run(1), run(2));
    for name in names() {
        // What `cost` measures is time.
        if name != "cost" {
            assert_eq!(measured(one.path(), &name), measured(two.path(), &name), "{name}");
        }
    }
}

#[test]
fn all_of_them_are_run_once() {
    const ARGUMENTS: [&str; 5] = ["--all", "--budget", "tiny", "--seeds", "1"];
    let out = tempfile::tempdir().unwrap();
    let last = names().pop().unwrap();
    let all = |more: &[&str]| {
        let output = study(out.path(), 2, &[&ARGUMENTS[..], more].concat()).output().unwrap();
        let outcomes: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let found: Vec<String> = outcomes.iter().map(|o| o["name"].as_str().unwrap().to_owned()).collect();
        let refuted = outcomes.iter().any(|outcome| outcome["verdict"] == "not_reproduced");
        (status(&output), found, Some(i32::from(refuted)), stderr(&output))
    };
    let (status, found, expected, said) = all(&["--resume", "--json"]);
    assert_eq!((status, found), (expected, names()), "{said}");

    // An unfinished one keeps the others from being replaced; only it is run on.
    let files = |study: &str| out.path().join(study).join("tiny");
    let time = |study: &str| {
        let units = std::fs::read_dir(files(study).join("units")).unwrap();
        units.map(|unit| unit.unwrap().metadata().unwrap().modified().unwrap()).max()
    };
    let before = (time("neighbours"), time(&last));
    std::fs::remove_file(files(&last).join("result.json")).unwrap();
    let unit = std::fs::read_dir(files(&last).join("units")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(unit).unwrap();
    let (status, found, _, said) = all(&["--json"]);
    assert_eq!((status, found.len()), (Some(2), 0));
    assert!(said.contains("--resume"), "{said}");
    let (status, found, expected, said) = all(&["--resume", "--json"]);
    assert_eq!((status, found), (expected, names()), "{said}");
    assert_eq!(time("neighbours"), before.0);
    assert!(time(&last) > before.1 && files(&last).join("result.json").exists());
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
    let cases: [(&[&str], &str); 6] = [
        (&["nothing"], "mnist"),
        (&["mnist", "--resume"], "nothing to resume"),
        (&["mnist", "--data", nowhere.to_str().unwrap()], "train-images-idx3-ubyte"),
        (&["mnist", "--seeds", "0"], "0"),
        (&["mnist", "--all"], "--all"),
        (&[], "NAME"),
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
    for heading in
        ["id=\"neighbours\"", "href=\"#neighbours\"", "id=\"neighbours-1\"", "href=\"#neighbours-1\""]
    {
        assert!(html.contains(heading), "the overview leads to {heading}");
    }
    assert!(html.contains("</html>") && html.contains("<svg") && html.contains("data:image/png"));
    assert!(html.contains("layernorm study run neighbours --budget quick"), "the command that repeats it");
}

#[test]
fn the_ledger_has_every_claim_once_and_what_came_out() {
    let runs = tempfile::tempdir().unwrap();
    let file = runs.path().join("claims.md");
    let ledger = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_layernorm"));
        command.arg("claims").args(more).arg("--runs").arg(runs.path()).output().unwrap()
    };
    let empty = ledger(&[]);
    assert_eq!(status(&empty), Some(0));
    assert!(String::from_utf8_lossy(&empty.stdout).contains("### M1: not run"));

    let output = study(runs.path(), 2, &["neighbours"]).output().unwrap();
    assert!(matches!(status(&output), Some(0 | 1)), "{}", stderr(&output));
    assert!(matches!(status(&ledger(&["--out", file.to_str().unwrap()])), Some(0 | 1)));
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(!written.contains("### M1: not run") && written.contains("../report/index.html#neighbours"));

    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/claims.md");
    for text in [written, std::fs::read_to_string(kept).unwrap()] {
        let ids: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("### ")?.split_once(": "))
            .map(|(id, _)| id)
            .collect();
        let groups = [("M", 8), ("G", 6), ("R", 9), ("C", 4), ("D", 7), ("E", 7), ("N", 6), ("S", 5)];
        let list = groups.iter().flat_map(|(group, count)| (1..=*count).map(move |n| format!("{group}{n}")));
        assert_eq!(ids, list.collect::<Vec<_>>());
    }
}
