//! A run: every case on every number of threads, all peers in turns.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime};

use indicatif::ProgressBar;
use tempfile::TempDir;

use crate::agree::difference;
use crate::cli::Cli;
use crate::console;
use crate::document::day;
use crate::error::Error;
use crate::machine::Machine;
use crate::notes::Notes;
use crate::number::{Dtype, Number};
use crate::operators::{Case, Direction, Operator};
use crate::peers::{Job, Peer, Peers, copies};
use crate::preset::{Preset, preset};
use crate::report::{BestCopy, Cell, Line, Outcome, Report, Version};
use crate::rounds::{interleaved, median, ratio};
use crate::shape::Shape;
use crate::tensors::Tensors;
use crate::work::Work;

/// Measures.
///
/// # Errors
/// Shapes that fit no operator, threads that can't be had, a full disk, or Ctrl-C.
pub fn run(cli: &Cli, stop: &AtomicBool) -> Result<Report, Error> {
    let start = Instant::now();
    let (load, preset) = (load(), preset(cli));
    let cases = cases(cli, &preset)?;
    let setup = Setup::new(cli, preset, stop)?;
    let dtypes = if cli.dtypes.is_empty() { &[Dtype::F32][..] } else { &cli.dtypes };
    let steps = cases.len() * dtypes.len() * setup.directions.len() * setup.pools.len();
    let bar = console::progress(steps as u64, "peers");
    let (mut lines, mut notes) = (Vec::new(), Notes::default());
    for (shape, operator) in &cases {
        for &dtype in dtypes {
            bar.set_message(format!("{shape} {} {}", operator.name(), dtype.name()));
            let mut sheet = Sheet { setup: &setup, bar: &bar, lines: &mut lines, notes: &mut notes };
            match dtype {
                Dtype::F32 => sheet.fill::<f32>(*operator, shape)?,
                Dtype::F64 => sheet.fill::<f64>(*operator, shape)?,
                Dtype::Bf16 => sheet.fill::<half::bf16>(*operator, shape)?,
                Dtype::F16 => sheet.fill::<half::f16>(*operator, shape)?,
            }
        }
    }
    bar.finish_and_clear();
    Ok(Report {
        command: cli.command_line(),
        machine: Machine::here(),
        day: day(SystemTime::now()),
        load,
        level: layernorm::Run::default().level()?.to_string(),
        versions: setup
            .peers
            .versions()
            .into_iter()
            .map(|(peer, version)| Version { peer, version })
            .collect(),
        lines,
        notes: notes.all(setup.rounds),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// How many programs want a processor, in the mean of the last minute, where the system says it.
fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// What was asked for, or what there is otherwise.
fn or<T: Clone>(asked: &[T], otherwise: &[T]) -> Vec<T> {
    if asked.is_empty() { otherwise.to_vec() } else { asked.to_vec() }
}

/// Each shape with each operator that takes it.
fn cases(cli: &Cli, preset: &Preset) -> Result<Vec<(Shape, Operator)>, Error> {
    let usual: Vec<Shape> = preset.shapes.iter().map(|axes| Shape::new(axes)).collect();
    let (shapes, operators) = (or(&cli.shapes, &usual), or(&cli.operators, preset.operators));
    let mut cases = Vec::new();
    for shape in &shapes {
        let before = cases.len();
        let fitting = operators.iter().filter(|operator| operator.entry().layout.fits(shape));
        cases.extend(fitting.map(|&operator| (shape.clone(), operator)));
        if cases.len() == before && !cli.shapes.is_empty() {
            return Err(Error::Misfit(shape.to_string()));
        }
    }
    Ok(cases)
}

/// How to measure, and with whom.
struct Setup<'a> {
    peers: Peers,
    directions: Vec<Direction>,
    /// Each number of threads, with its pool.
    pools: Vec<(usize, Arc<rayon::ThreadPool>)>,
    rounds: usize,
    stop: &'a AtomicBool,
}

impl<'a> Setup<'a> {
    fn new(cli: &Cli, preset: Preset, stop: &'a AtomicBool) -> Result<Self, Error> {
        let mut threads = or(&cli.threads, &preset.threads);
        threads.dedup();
        let pool = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            Ok((threads, Arc::new(pool.map_err(|source| Error::Threads { threads, source })?)))
        };
        Ok(Self {
            pools: threads.into_iter().map(pool).collect::<Result<_, Error>>()?,
            peers: Peers::start(&or(&cli.peers, preset.peers), &cli.python),
            directions: cli.direction.map_or(Direction::ALL.to_vec(), |direction| vec![direction]),
            rounds: cli.rounds.map_or(preset.rounds, usize::from),
            stop,
        })
    }
}

/// What is being filled in.
struct Sheet<'a> {
    setup: &'a Setup<'a>,
    bar: &'a ProgressBar,
    lines: &'a mut Vec<Line>,
    notes: &'a mut Notes,
}

impl Sheet<'_> {
    /// All lines of an operator and a shape, on the same numbers.
    fn fill<T: Number>(&mut self, operator: Operator, shape: &Shape) -> Result<(), Error> {
        let setup = self.setup;
        let folder = TempDir::new().map_err(Error::io(&std::env::temp_dir()))?;
        let data = Arc::new(Tensors::<T>::draw(operator, shape, &setup.directions));
        for &direction in &setup.directions {
            let case = Case { operator, direction, shape: shape.clone() };
            if setup.peers.need_files() {
                data.write(folder.path(), &case.inputs())?;
            }
            for (threads, pool) in &setup.pools {
                let (folder, threads) = (folder.path(), *threads);
                let line = self.line(&Job { case: &case, data: &data, folder, threads, pool })?;
                self.lines.push(line);
                self.bar.inc(1);
            }
        }
        Ok(())
    }

    fn line<T: Number>(&mut self, job: &Job<'_, T>) -> Result<Line, Error> {
        let mut prepared: Vec<_> = self.setup.peers.prepare(job).collect();
        let agreeing = self.agreeing(job, &mut prepared);
        let mut copies = copies::prepare(job);
        let copying = copies.iter_mut().map(|(_, copy)| &mut **copy as &mut dyn Work<T>);
        let working = prepared.iter_mut().filter_map(|(_, work)| work.as_mut().ok());
        let mut work: Vec<_> = copying.chain(working.map(|work| &mut **work as &mut dyn Work<T>)).collect();
        let mut times = interleaved(&mut work, self.setup.rounds, self.setup.stop)?;

        let mut peers = times.split_off(copies.len()).into_iter();
        let results: Vec<(Peer, Result<Vec<f64>, Error>)> = prepared
            .into_iter()
            .map(|(peer, work)| (peer, work.and_then(|_| peers.next().unwrap_or(Ok(Vec::new())))))
            .collect();
        let named = copies.iter().map(|(way, _)| *way).zip(times.into_iter().map(Result::unwrap_or_default));
        let (way, copy) = named.min_by(|a, b| median(&a.1).total_cmp(&median(&b.1))).unwrap_or_default();
        let ours: Option<Vec<f64>> = results
            .iter()
            .find(|(peer, _)| *peer == Peer::Ours)
            .and_then(|(_, times)| times.as_ref().ok().cloned());
        let cells = results.into_iter().zip(agreeing).map(|((peer, times), agrees)| {
            let outcome = match times {
                Ok(times) => Outcome::Timed {
                    ns: median(&times),
                    best_ns: times.iter().copied().fold(f64::INFINITY, f64::min),
                    x_ours: ours.as_ref().map(|ours| ratio(&times, ours)),
                    x_copy: ratio(&times, &copy),
                    agrees,
                },
                Err(error) => Outcome::Lacking { lacks: self.notes.excuse(peer, job, error) },
            };
            Cell { peer, outcome }
        });
        Ok(Line {
            cells: cells.collect(),
            shape: job.case.shape.to_string(),
            operator: job.case.operator,
            direction: job.case.direction,
            dtype: T::NAME,
            threads: job.threads,
            copy: BestCopy { ns: median(&copy), way: way.to_owned() },
        })
    }

    /// Which peers have the same result as the one that is trusted most. One that fails at it is turned into its error.
    fn agreeing<T: Number>(&mut self, job: &Job<'_, T>, prepared: &mut [Prepared<T>]) -> Vec<bool> {
        let mut agreeing = vec![true; prepared.len()];
        let mut order: Vec<usize> = (0..prepared.len()).collect();
        order.sort_by_key(|&at| prepared[at].0.trust());
        let (names, mut reference) = (job.case.outputs(), None);
        for at in order {
            let (peer, work) = &mut prepared[at];
            if !peer.has_results() {
                continue;
            }
            match (work.as_mut().map(|work| work.outputs()), &reference) {
                (Ok(Ok(outputs)), None) => reference = Some((*peer, outputs)),
                (Ok(Ok(outputs)), Some((first, reference))) => {
                    if let Some(difference) = difference(reference, &outputs, &names) {
                        agreeing[at] = false;
                        self.notes.difference([*peer, *first], job, &difference);
                    }
                }
                (Ok(Err(error)), _) => *work = Err(error),
                (Err(_), _) => {}
            }
        }
        agreeing
    }
}

type Prepared<T> = (Peer, Result<Box<dyn Work<T>>, Error>);
