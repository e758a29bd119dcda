//! Peers that live in Python: a process for each, which stays for the whole run and takes its turns like the others.
//!
//! `peers.py` is the other end, and says what is said.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Job;
use crate::error::Error;
use crate::number::Number;
use crate::operators::Case;
use crate::tensors::{Name, Tensors};
use crate::work::Work;

/// A process with one library.
pub struct Child {
    talk: Rc<RefCell<Talk>>,
    version: String,
}

/// Questions and answers.
struct Talk {
    process: std::process::Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Where the script and the process's errors lie.
    folder: TempDir,
}

/// An answer.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    why: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    seconds: f64,
}

impl Child {
    /// Starts the process, and the library in it.
    ///
    /// # Errors
    /// [`Error::Lacks`] without Python or the library.
    pub fn start(peer: &'static str, python: &Path) -> Result<Self, Error> {
        let mut talk = Talk::start(peer, python)?;
        let version = talk.ask(&json!({"do": "hello"}))?.version;
        Ok(Self { talk: Rc::new(RefCell::new(talk)), version })
    }

    /// The library's.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Has a case prepared.
    ///
    /// # Errors
    /// [`Error::Lacks`], and a process that broke off.
    pub fn prepare<T: Number>(&self, job: &Job<'_, T>) -> Result<Box<dyn Work<T>>, Error> {
        let names = |names: Vec<Name>| names.into_iter().map(Name::name).collect::<Vec<_>>();
        let question = json!({
            "do": "prepare",
            "operator": job.case.operator.name(),
            "direction": job.case.direction.name(),
            "dtype": T::NAME.name(),
            "shape": job.case.shape.axes(),
            "large": names(job.case.inputs().into_iter().filter(|name| name.is_large()).collect()),
            "eps": Case::EPS,
            "groups": Case::GROUPS,
            "threads": job.threads,
            "folder": job.folder,
            "inputs": names(job.case.inputs()),
            "outputs": names(job.case.outputs()),
        });
        self.talk.borrow_mut().ask(&question)?;
        let (talk, folder) = (self.talk.clone(), job.folder.to_owned());
        Ok(Box::new(Prepared { talk, folder, outputs: job.case.outputs() }))
    }
}

impl Talk {
    fn start(peer: &'static str, python: &Path) -> Result<Self, Error> {
        let folder = TempDir::new().map_err(Error::io(&std::env::temp_dir()))?;
        let [script, errors] = ["peers.py", "errors"].map(|name| folder.path().join(name));
        fs::write(&script, include_str!("../../peers.py")).map_err(Error::io(&script))?;
        let log = File::create(&errors).map_err(Error::io(&errors))?;
        let mut command = Command::new(python);
        command.arg(&script).arg(peer).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                Error::Lacks { why: "not installed".into(), detail: format!("no {}", python.display()) }
            }
            _ => Error::Io { path: python.to_owned(), source: error },
        })?;
        let (questions, answers) = (process.stdin.take(), process.stdout.take());
        let answers = answers.ok_or_else(|| Error::Python("no output".into()))?;
        Ok(Self { process, questions, answers: BufReader::new(answers), folder })
    }

    /// One line there, one line back.
    fn ask(&mut self, question: &Value) -> Result<Answer, Error> {
        let mut line = String::new();
        let told = self.questions.as_mut().map(|questions| writeln!(questions, "{question}"));
        let read = matches!(told, Some(Ok(()))).then(|| self.answers.read_line(&mut line));
        if !matches!(read, Some(Ok(1..))) {
            return Err(self.broken());
        }
        let answer: Answer = serde_json::from_str(&line)
            .map_err(|error| Error::Python(format!("{error} in {:?}", line.trim())))?;
        if answer.ok { Ok(answer) } else { Err(Error::Lacks { why: answer.why, detail: answer.detail }) }
    }

    /// What a process that ended has said last.
    fn broken(&self) -> Error {
        let errors = fs::read_to_string(self.folder.path().join("errors")).unwrap_or_default();
        let last = errors.lines().rev().find(|line| !line.trim().is_empty());
        Error::Python(format!("ended: {}", last.unwrap_or("it said nothing")))
    }
}

impl Drop for Talk {
    /// The end of its input ends the process.
    fn drop(&mut self) {
        self.questions = None;
        // It is of no use whether it ended well.
        let _ = self.process.wait();
    }
}

/// A case in another process.
struct Prepared {
    talk: Rc<RefCell<Talk>>,
    folder: PathBuf,
    outputs: Vec<Name>,
}

impl<T: Number> Work<T> for Prepared {
    /// By the process's own clock.
    fn sample(&mut self, calls: u32) -> Result<Duration, Error> {
        let mut talk = self.talk.borrow_mut();
        let seconds = talk.ask(&json!({"do": "run", "calls": calls}))?.seconds;
        Duration::try_from_secs_f64(seconds)
            .map_err(|error| Error::Python(format!("{seconds} seconds: {error}")))
    }

    fn outputs(&mut self) -> Result<Tensors<T>, Error> {
        self.talk.borrow_mut().ask(&json!({"do": "outputs"}))?;
        Tensors::read(&self.folder, &self.outputs)
    }
}

impl Drop for Prepared {
    /// Its tensors may be large.
    fn drop(&mut self) {
        // A process that has ended keeps none.
        let _ = self.talk.borrow_mut().ask(&json!({"do": "drop"}));
    }
}
