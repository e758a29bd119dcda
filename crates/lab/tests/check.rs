//! `layernorm check` and `layernorm bench`: what they print, and how they end.

mod common;

use common::{json, layernorm, run, stderr, stdout};

#[test]
fn a_check_holds_and_says_what_it_saw() {
    let output = run(&["check", "--operators", "rms_norm", "--seed", "7", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary = json(&output);
    assert_eq!(summary["passed"], true);
    assert_eq!(summary["command"], "layernorm check --operators rms_norm --seed 7");
    let levels = summary["levels"].as_array().unwrap();
    let names: Vec<_> = levels.iter().map(|level| level["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["portable", "neon", "avx2", "avx512"]);
    let tested: Vec<_> = levels.iter().filter(|level| level["available"] == true).collect();
    for level in levels.iter().filter(|level| level["available"] == false) {
        assert!(level["note"].as_str().unwrap().starts_with("skipped"), "{level}");
    }
    let errors = summary["errors"].as_array().unwrap();
    // Five outputs; four types, and halves with parameters in f32.
    assert_eq!(errors.len(), 5 * (4 + 2) * tested.len());
    for error in errors {
        assert!(error["worst"].as_f64().unwrap() <= error["bound"].as_f64().unwrap(), "{error}");
        assert!(error["rows"].as_u64().unwrap() > 1000, "{error}");
        assert!(tested.iter().any(|level| level["name"] == error["level"]), "{error}");
    }
    assert!(summary["bits"].as_array().unwrap().iter().all(|case| case["cases"].as_u64().unwrap() > 0));
}

#[test]
fn one_level_can_be_checked_alone() {
    let output = run(&["check", "--operators", "layer_norm", "--level", "portable"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("Everything held") && text.contains("avx512    skipped"), "{text}");
}

#[test]
fn a_level_that_is_not_here_is_no_success() {
    let absent = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    for command in ["check", "bench"] {
        let output = run(&[command, "--level", absent]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(stderr(&output).contains("is not available here"), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_bench_gives_a_line_for_each_pass_and_number_of_threads() {
    let operators = "layer_norm,add_rms_norm";
    let shapes = "3x64,40x1000";
    let arguments = [
        "bench",
        "--shapes",
        shapes,
        "--operators",
        operators,
        "--threads",
        "1,2",
        "--rounds",
        "1",
        "--apart",
        "4096",
        "--json",
    ];
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary = json(&output);
    let command = format!(
        "layernorm bench --shapes {shapes} --operators {operators} --threads 1,2 --rounds 1 --apart 4096"
    );
    assert_eq!(summary["command"], command);
    let rows = summary["rows"].as_array().unwrap();
    // Shapes, operators, directions, threads.
    assert_eq!(rows.len(), 2 * 2 * 2 * 2);
    for row in rows {
        assert!(row["ns"].as_f64().unwrap() > 0.0 && row["ratio"].as_f64().unwrap() > 0.0, "{row}");
    }
}

/// Every operator has a shape of its own to run on, and takes any other that can be its own.
#[test]
fn every_operator_is_timed_in_every_type() {
    for dtype in ["f32", "f64", "f16", "bf16"] {
        let output = run(&["bench", "--shapes", "3x64", "--dtype", dtype, "--threads", "1", "--rounds", "1"]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{dtype}: {}", stderr(&output));
        assert!(text.contains("3 x 64") && text.contains(dtype) && text.contains("best copy"), "{text}");
        for operator in [
            "layer_norm",
            "add_layer_norm",
            "ada_layer_norm",
            "scale_norm",
            "weight_norm",
            "qk_norm",
            "lp_norm",
            "rms_norm_axes",
            "group_norm_silu",
            "layer_norm_int8",
        ] {
            assert!(text.contains(operator), "{operator} in {dtype}: {text}");
        }
    }
}

/// Halves are checked beside f32 and f64, with a residual in either type.
#[test]
fn a_residual_is_checked_in_both_types() {
    let output = run(&["check", "--operators", "add_layer_norm", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let summary = json(&output);
    let errors = summary["errors"].as_array().unwrap();
    for dtype in ["f32", "f64", "f16", "bf16", "bf16, f32", "bf16, f32 residual"] {
        for quantity in ["y", "residual_out", "dx", "dresidual", "dweight", "dbias", "dbranch_bias"] {
            let found = errors.iter().any(|error| error["dtype"] == dtype && error["quantity"] == quantity);
            assert!(found, "{quantity} in {dtype}");
        }
    }
}

#[test]
fn bad_use_is_refused() {
    for (arguments, says) in [
        (vec!["bench", "--shapes", "64"], "is not rows x features"),
        (vec!["bench", "--shapes", "0x64"], "is not rows x features"),
        (vec!["bench", "--shapes", "99999999999x99999999999"], "million numbers"),
        (vec!["bench", "--rounds", "0"], "invalid"),
        (vec!["bench", "--apart", "99999999"], "invalid"),
        (vec!["bench", "--operators", "laser_norm"], "layer_norm, rms_norm"),
        (vec!["check", "--operators", "laser_norm"], "layer_norm, rms_norm"),
        (vec!["check", "--level", "mmx"], "portable, neon, avx2, avx512"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(says), "{arguments:?}: {}", stderr(&output));
    }
}

/// A reader that has seen enough, such as `head`, is not met with a panic.
#[test]
fn a_closed_pipe_is_no_crash() {
    let mut child = layernorm(&["bench", "--shapes", "3x64", "--rounds", "1"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(0));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_130() {
    for command in [&["check", "--thorough"][..], &["bench", "--shapes", "16384x1024", "--rounds", "60000"]] {
        let mut child = layernorm(command)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_secs(2));
        let kill =
            std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{command:?}");
    }
}
