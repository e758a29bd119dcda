//! A run's folder: what was asked, what is finished, what is under way.
//!
//! ```text
//! runs/NAME/BUDGET/settings.json         all that the numbers depend on
//!                  units/ARM-SEED.json   a finished unit's measurements
//!                  units/ARM-SEED.state  an unfinished unit, to go on from
//!                  result.json           the outcome, once all units are finished
//! ```
//! Each budget has its folder, so that a quick look does not replace the result of a long night.
//! Every file is written beside its place, flushed to the disk and renamed, so that a crash at any moment leaves
//! either the old or the new one, whole.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Budget, Error};
use crate::report::model::{Measured, Settings, StudyOutcome};

/// What to do with a run that is already in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Previous {
    /// A finished one is replaced, an unfinished one is an error.
    Respect,
    /// Go on where it stopped; it is an error if its settings differ or there is none.
    Resume,
    /// Go on where it stopped, even if that is the beginning or the end; it is an error if its settings differ.
    ResumeOrBegin,
    /// Go on where it stopped if it is unfinished and its settings are equal, else replace it.
    ResumeIfSame,
    /// Replace it.
    Discard,
}

/// The folder of one study's run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Opens the run's folder under `out` for a run with these settings.
    ///
    /// # Errors
    /// [`Error::Unfinished`], [`Error::NothingSaved`], [`Error::Settings`] as `previous` demands; files that can't be
    /// read or written.
    pub fn open(out: &Path, settings: &Settings, previous: Previous) -> Result<Self, Error> {
        let folder = Self { path: out.join(&settings.study).join(&settings.budget) };
        let saved: Option<Settings> = read_json(&folder.path.join("settings.json"))?;
        let finished = folder.path.join("result.json").exists();
        match (previous, saved) {
            (Previous::Resume, None) => return Err(Error::NothingSaved { path: folder.path }),
            (Previous::Resume | Previous::ResumeOrBegin, Some(saved)) if saved != *settings => {
                let differences = differences(&saved, settings);
                return Err(Error::Settings { path: folder.path, differences });
            }
            (Previous::Respect, Some(_)) if !finished => return Err(Error::Unfinished { path: folder.path }),
            (Previous::Resume | Previous::ResumeOrBegin, Some(_)) => return Ok(folder),
            (Previous::ResumeIfSame, Some(saved)) if !finished && saved == *settings => return Ok(folder),
            _ => {}
        }
        folder.clear()?;
        write_json(&folder.path.join("settings.json"), settings)?;
        Ok(folder)
    }

    /// Removes what a run writes, and nothing else that may lie in the folder.
    fn clear(&self) -> Result<(), Error> {
        for name in ["result.json", "settings.json"] {
            absent_is_fine(&self.path.join(name), |path| fs::remove_file(path))?;
        }
        absent_is_fine(&self.path.join("units"), |path| fs::remove_dir_all(path))?;
        let units = self.path.join("units");
        fs::create_dir_all(&units).map_err(|source| Error::Io { path: units, source })
    }

    fn unit(&self, arm: &str, seed: u64, extension: &str) -> PathBuf {
        self.path.join("units").join(format!("{arm}-{seed}.{extension}"))
    }

    /// A finished unit.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn finished(&self, arm: &str, seed: u64) -> Result<Option<Measured>, Error> {
        read_json(&self.unit(arm, seed, "json"))
    }

    /// The state of an unfinished unit.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn state(&self, arm: &str, seed: u64) -> Result<Option<Vec<u8>>, Error> {
        read(&self.unit(arm, seed, "state"))
    }

    /// Keeps the state of an unfinished unit.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn keep_state(&self, arm: &str, seed: u64, state: &[u8]) -> Result<(), Error> {
        write(&self.unit(arm, seed, "state"), state)
    }

    /// Keeps a finished unit; its state is no longer needed.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn keep(&self, measured: &Measured) -> Result<(), Error> {
        write_json(&self.unit(&measured.arm, measured.seed, "json"), measured)?;
        absent_is_fine(&self.unit(&measured.arm, measured.seed, "state"), |path| fs::remove_file(path))
    }

    /// Keeps the outcome.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn keep_outcome(&self, outcome: &StudyOutcome) -> Result<(), Error> {
        write_json(&self.path.join("result.json"), outcome)
    }
}

/// Makes sure that no unfinished run of a study lies under `out`.
///
/// # Errors
/// [`Error::Unfinished`].
pub fn no_unfinished(out: &Path, study: &str, budget: Budget) -> Result<(), Error> {
    let path = out.join(study).join(budget.name());
    let begun = path.join("settings.json").exists() && !path.join("result.json").exists();
    if begun { Err(Error::Unfinished { path }) } else { Ok(()) }
}

/// The outcomes of the finished runs of these studies under `out`, each of its largest budget.
///
/// # Errors
/// A file that can't be read or isn't an outcome.
pub fn outcomes(out: &Path, studies: &[&str]) -> Result<Vec<StudyOutcome>, Error> {
    let mut found = Vec::new();
    for study in studies {
        for budget in [Budget::Full, Budget::Standard, Budget::Quick] {
            let outcome: Option<StudyOutcome> =
                read_json(&out.join(study).join(budget.name()).join("result.json"))?;
            if outcome.is_some() {
                found.extend(outcome);
                break;
            }
        }
    }
    Ok(found)
}

/// Setting by setting, where two runs differ.
fn differences(saved: &Settings, asked: &Settings) -> String {
    let list = |settings: &Settings| {
        let mut list = settings.details.clone();
        list.insert("budget".to_owned(), settings.budget.clone());
        list.insert("seeds".to_owned(), format!("{:?}", settings.seeds));
        list
    };
    let (saved, asked) = (list(saved), list(asked));
    let mut names: Vec<&String> = saved.keys().chain(asked.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let text = |settings: &std::collections::BTreeMap<String, String>, name| {
        settings.get(name).cloned().unwrap_or_else(|| "nothing".to_owned())
    };
    names
        .into_iter()
        .filter(|name| saved.get(*name) != asked.get(*name))
        .map(|name| format!("  {name}: saved {}; asked {}", text(&saved, name), text(&asked, name)))
        .collect::<Vec<_>>()
        .join("\n")
}

fn absent_is_fine(path: &Path, act: impl Fn(&Path) -> std::io::Result<()>) -> Result<(), Error> {
    match act(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Error::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
    }
}

/// A value from a file, if the file is there.
///
/// # Errors
/// A file that can't be read or holds something else.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let value =
        serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    Ok(Some(value))
}

/// A value into a file, whole or not at all.
///
/// # Errors
/// A file that can't be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let bytes =
        serde_json::to_vec_pretty(value).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    write(path, &bytes)
}

/// Writes a whole file or none of it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let beside = path.with_extension("partial");
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    written.map_err(|source| Error::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(budget: &str) -> Settings {
        let details = [("data".to_owned(), "drawn".to_owned())].into();
        Settings { study: "toy".to_owned(), budget: budget.to_owned(), seeds: vec![0, 1], details }
    }

    #[test]
    fn keeps_what_it_is_given() {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(out.path(), &settings("quick"), Previous::Respect).unwrap();
        folder.keep_state("a", 1, b"half").unwrap();
        assert_eq!(folder.state("a", 1).unwrap().as_deref(), Some(&b"half"[..]));
        let measured = Measured { arm: "a".to_owned(), seed: 1, seconds: 0.5, ..Measured::default() };
        folder.keep(&measured).unwrap();
        assert_eq!(folder.finished("a", 1).unwrap(), Some(measured));
        assert_eq!((folder.state("a", 1).unwrap(), folder.finished("a", 2).unwrap()), (None, None));
    }

    #[test]
    fn an_unfinished_run_is_not_lost_by_accident() {
        let out = tempfile::tempdir().unwrap();
        let open = |previous| RunFolder::open(out.path(), &settings("quick"), previous);
        open(Previous::Respect).unwrap().keep_state("a", 1, b"half").unwrap();
        assert!(matches!(open(Previous::Respect), Err(Error::Unfinished { .. })));
        assert!(open(Previous::ResumeIfSame).unwrap().state("a", 1).unwrap().is_some());
        assert!(open(Previous::Resume).unwrap().state("a", 1).unwrap().is_some());
        assert!(open(Previous::Discard).unwrap().state("a", 1).unwrap().is_none());
    }

    #[test]
    fn other_settings_are_not_resumed_and_both_are_named() {
        let out = tempfile::tempdir().unwrap();
        let open = |data: &str, previous| {
            let details =
                [("data".to_owned(), data.to_owned()), ("epochs".to_owned(), "4".to_owned())].into();
            RunFolder::open(out.path(), &Settings { details, ..settings("quick") }, previous)
        };
        assert!(matches!(open("drawn", Previous::Resume), Err(Error::NothingSaved { .. })));
        open("drawn", Previous::ResumeOrBegin).unwrap();
        assert!(matches!(open("MNIST", Previous::ResumeOrBegin), Err(Error::Settings { .. })));
        let error = open("MNIST", Previous::Resume).unwrap_err().to_string();
        assert!(error.contains("data: saved drawn; asked MNIST"), "{error}");
        assert!(!error.contains("epochs"), "{error}");
    }

    #[test]
    fn a_broken_file_is_an_error_with_its_name() {
        let out = tempfile::tempdir().unwrap();
        RunFolder::open(out.path(), &settings("quick"), Previous::Respect).unwrap();
        fs::write(out.path().join("toy/quick/settings.json"), "{").unwrap();
        let error = RunFolder::open(out.path(), &settings("quick"), Previous::Resume).unwrap_err();
        assert!(
            matches!(error, Error::Json { .. }) && error.to_string().contains("settings.json"),
            "{error}"
        );
    }
}
