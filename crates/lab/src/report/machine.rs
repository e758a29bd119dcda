//! The machine and the versions behind a number: without them a number means little.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// Where and with what a result was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Threads that it runs at once.
    pub threads: usize,
    /// Operating system and architecture.
    pub system: String,
    /// This program's version.
    pub version: String,
    /// The commit of the sources, where it could be found, with `+` for changes since.
    pub commit: String,
    /// Libraries that the numbers depend on.
    pub libraries: Vec<String>,
}

impl Machine {
    /// This machine, now.
    pub fn here() -> Self {
        let mut libraries = Vec::new();
        if cfg!(feature = "studies") {
            libraries.push("burn 0.22.1 (flex)".to_owned());
        }
        Self {
            cpu: cpu().unwrap_or_else(|| "unknown processor".to_owned()),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit().unwrap_or_default(),
            libraries,
        }
    }
}

fn cpu() -> Option<String> {
    if cfg!(target_os = "macos") {
        return output("sysctl", &["-n", "machdep.cpu.brand_string"]);
    }
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    field("model name").or_else(|| field("CPU part").map(|part| format!("ARM part {part}")))
}

/// The sources' commit: of the folder that this binary was built from, if it is still there.
fn commit() -> Option<String> {
    let home = env!("CARGO_MANIFEST_DIR");
    let hash = output("git", &["-C", home, "rev-parse", "--short=10", "HEAD"])?;
    let changes = output("git", &["-C", home, "status", "--porcelain", "--untracked-files=no"]);
    Some(if changes.is_some() { hash + "+" } else { hash })
}

/// What a program prints, unless it fails or prints nothing.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
