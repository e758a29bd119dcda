//! `layernorm bench`: is it fast on this machine?

mod copy;
mod time;
mod traffic;

use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::{Args, ValueEnum};
use half::{bf16, f16};
use indicatif::ProgressBar;
use layernorm::{Level, Run, Threads};

use crate::console;
use crate::error::Error;
use crate::operators::{
    self, Extent, How, Operator, Options, Problem, Slot, Structure, Tensors, Types, by_name,
};
use crate::report::model::{BenchRow, BenchSummary};
use copy::{Way, Word};
use traffic::{Traffic, copy_tensors};

/// Matrices, from one row to far beyond the caches.
const SHAPES: &[&[usize]] = &[
    &[1, 768],
    &[8, 768],
    &[512, 768],
    &[200_000, 64],
    &[8192, 1024],
    &[32768, 1024],
    &[2048, 4096],
    &[16384, 4096],
    &[1024, 16384],
    &[256, 65536],
];

/// Far beyond the caches of servers too: 512 MiB a tensor in f32. For the plain norms.
const LARGE: &[&[usize]] =
    &[&[1 << 21, 64], &[1 << 17, 1024], &[1 << 15, 4096], &[1 << 13, 16384], &[1 << 11, 65536]];

/// Samples of rows that share their modulation.
const MODULATED: &[&[usize]] =
    &[&[1, 1, 768], &[2, 256, 768], &[32, 1024, 1024], &[8, 256, 4096], &[64, 256, 4096]];

/// Pictures, channels first.
const PICTURES: &[&[usize]] = &[&[1, 64, 8, 8], &[32, 64, 56, 56], &[32, 2048, 7, 7], &[32, 320, 64, 64]];

/// Tokens of heads of numbers: queries, and keys that several queries share.
const HEADS: &[&[usize]] =
    &[&[1, 32, 128], &[512, 32, 128], &[8192, 8, 128], &[8192, 32, 128], &[32768, 12, 64]];

/// Those that the tour takes.
const QUICK: &[&[usize]] = &[&[1, 768], &[512, 768], &[200_000, 64], &[8192, 1024], &[2048, 4096]];

/// The operators that the tour takes, and that take the largest shapes.
const PLAIN: [&str; 2] = ["layer_norm", "rms_norm"];

/// The arguments of `layernorm bench`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_long_help = "\
A norm reads its input once and writes its output once, so nothing can be faster than a copy of the same bytes. Each
line says how long a call takes beside the best such copy, both measured in turns in the same run on the same memory;
medians of the rounds. A ratio of 1.10 is 10% above that floor. The copy reads as many arrays as the pass does (forward
mostly one; backward two, x and dy), merges them by exclusive or, and writes as many; beside outputs in eight bits it
moves as many bytes. It is the best of memcpy, of a
loop through the cache, and of a loop whose stores bypass it.

Backward passes use saved statistics and give all gradients. GB/s counts the bytes of the arrays as large as x.
Small inputs live in the caches, where arithmetic and the call itself count, and ratios are larger. The largest
shapes, which layer_norm and rms_norm take, need 2 GiB of memory; all operators on all shapes need some minutes.
Where tensors lie can count: with --apart they lie further from each other. (On an AMD processor, x and dy whose
addresses differ by 2^27 + 2^12, as those of two vectors of 128 MiB do, drive each other out of its first cache.)
Nothing is written. Other programs at work disturb the numbers: look at the ratios.

Examples:
  layernorm bench
  layernorm bench --quick
  layernorm bench --shapes 512x768,2048x4096 --operators rms_norm --direction forward --threads 1
  layernorm bench --dtype bf16 --operators layer_norm --shapes 32768x1024")]
pub struct BenchArgs {
    /// A few shapes, layer_norm and rms_norm only: about ten seconds
    #[arg(long)]
    pub quick: bool,
    /// Rows x features, or more axes (samples x channels x height x width), separated by commas
    #[arg(long, value_delimiter = ',', value_name = "RxF", value_parser = shape)]
    pub shapes: Vec<Shape>,
    /// Only these operators, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "OP", value_parser = by_name())]
    pub operators: Vec<&'static Operator>,
    /// Only this direction
    #[arg(long, value_enum)]
    pub direction: Option<Direction>,
    /// The type of the numbers
    #[arg(long, value_enum, default_value_t)]
    pub dtype: Dtype,
    /// Instruction set [default: the widest here]
    #[arg(long, value_parser = crate::cli::level())]
    pub level: Option<Level>,
    /// Numbers of threads, separated by commas [default: 1 and the processor's]
    #[arg(long, value_delimiter = ',', value_name = "T", value_parser = crate::cli::threads)]
    pub threads: Vec<usize>,
    /// Bytes to leave behind each tensor, which else lie where vectors come to lie [default: 0]
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true,
          value_parser = clap::value_parser!(u32).range(..=1 << 24))]
    pub apart: u32,
    /// Rounds that the medians are taken over [default: 7, quick 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: Option<u16>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Two axes or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape(Vec<usize>);

/// Which pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// From input to output
    Forward,
    /// From the output's gradient to the input's and the parameters'
    Backward,
}

/// The type of the numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// Single precision
    #[default]
    F32,
    /// Double precision
    F64,
    /// IEEE halves
    F16,
    /// Halves with the exponents of f32
    Bf16,
}

/// `512x768`, of a size that addresses can count.
fn shape(text: &str) -> Result<Shape, String> {
    let wrong = || format!("{text:?} is not rows x features, such as 512x768");
    let count = |text: &str| text.trim().parse().ok().filter(|&count: &usize| count > 0);
    let axes: Vec<usize> = text.split('x').map(count).collect::<Option<_>>().ok_or_else(wrong)?;
    if axes.len() < 2 {
        return Err(wrong());
    }
    let numbers = axes.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    let fits = numbers.is_some_and(|numbers| numbers <= 1 << 33);
    if fits { Ok(Shape(axes)) } else { Err(format!("{text} is more than 8 thousand million numbers")) }
}

/// `layernorm bench`.
///
/// # Errors
/// A level that the machine lacks, threads that can't be had, or Ctrl-C.
pub fn command(arguments: &BenchArgs, stop: &AtomicBool) -> Result<(), Error> {
    let summary = run(arguments, stop)?;
    if arguments.json { console::print_json(&summary) } else { console::print(&show(&summary)) }
}

/// Measures.
///
/// # Errors
/// As [`command`].
pub fn run(arguments: &BenchArgs, stop: &AtomicBool) -> Result<BenchSummary, Error> {
    let start = Instant::now();
    let bench = Bench::new(arguments, stop)?;
    let operators: Vec<&Operator> = match (arguments.operators.is_empty(), arguments.quick) {
        (false, _) => arguments.operators.clone(),
        (_, true) => operators::ALL.iter().filter(|operator| PLAIN.contains(&operator.name)).collect(),
        _ => operators::ALL.iter().collect(),
    };
    let mut jobs: Vec<(Vec<usize>, &Operator)> = Vec::new();
    for operator in &operators {
        jobs.extend(shapes(operator, arguments).into_iter().map(|shape| (shape, *operator)));
    }
    // By size, so that the operators' times of a shape stand together.
    jobs.sort_by_key(|(shape, _)| (shape.iter().product::<usize>(), shape.clone()));
    let bar = console::progress((jobs.len() * bench.jobs()) as u64, "bench");
    let mut rows = Vec::new();
    for (shape, operator) in &jobs {
        bar.set_message(format!("{} {}", axes(shape, "x"), operator.name));
        rows.extend(match arguments.dtype {
            Dtype::F32 => bench.operator::<f32>(operator, shape, &bar)?,
            Dtype::F64 => bench.operator::<f64>(operator, shape, &bar)?,
            Dtype::F16 => bench.operator::<f16>(operator, shape, &bar)?,
            Dtype::Bf16 => bench.operator::<bf16>(operator, shape, &bar)?,
        });
    }
    bar.finish_and_clear();
    Ok(BenchSummary {
        command: command_line(arguments),
        seconds: start.elapsed().as_secs_f64(),
        level: bench.run.level()?.to_string(),
        rows,
        notes: vec![
            format!("medians of {} rounds (short calls: 4 times as many); calls and copies in turns, on the same memory", bench.rounds),
            "the copy reads as many arrays as the pass does (forward x; backward x and dy) and writes as many".into(),
            format!("they lie in L2 where they fit the {} KiB that a core has there, in L3 where they fit its {} MiB, else in memory", bench.caches[0] >> 10, bench.caches[1] >> 20),
        ],
    })
}

/// The shapes that an operator is timed on.
fn shapes(operator: &Operator, arguments: &BenchArgs) -> Vec<Vec<usize>> {
    if !arguments.shapes.is_empty() {
        return arguments.shapes.iter().map(|shape| shape.0.clone()).collect();
    }
    let own: &[&[&[usize]]] = match operator.structure {
        Structure::Samples => &[MODULATED],
        Structure::Heads => &[HEADS],
        Structure::Axes | Structure::Groups | Structure::Channels | Structure::Batch => &[PICTURES],
        Structure::Rows if arguments.quick => &[QUICK],
        Structure::Rows if PLAIN.contains(&operator.name) => &[SHAPES, LARGE],
        Structure::Rows | Structure::Lines | Structure::Units => &[SHAPES],
    };
    own.concat().into_iter().map(<[usize]>::to_vec).collect()
}

/// 512x768.
fn axes(shape: &[usize], by: &str) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(by)
}

/// How to measure.
struct Bench<'a> {
    run: Run,
    directions: Vec<Direction>,
    /// Each number of threads, with its pool.
    threads: Vec<(usize, rayon::ThreadPool)>,
    rounds: usize,
    /// Bytes behind each tensor.
    apart: usize,
    /// Bytes of a core's second cache and of the third, which cores share.
    caches: [usize; 2],
    stop: &'a AtomicBool,
}

impl<'a> Bench<'a> {
    fn new(arguments: &BenchArgs, stop: &'a AtomicBool) -> Result<Self, Error> {
        let run = arguments.level.map_or(Run::default(), |level| Run::default().with_level(level));
        run.level()?;
        let both = [Direction::Forward, Direction::Backward];
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match arguments.threads.as_slice() {
            [] if all == 1 => vec![1],
            [] => vec![1, all],
            given => given.to_vec(),
        };
        let pool = |threads| Ok((threads, crate::cli::pool(threads)?));
        Ok(Self {
            run,
            directions: arguments.direction.map_or(both.to_vec(), |direction| vec![direction]),
            threads: threads.into_iter().map(pool).collect::<Result<_, Error>>()?,
            rounds: arguments.rounds.map_or(if arguments.quick { 5 } else { 7 }, usize::from),
            apart: arguments.apart as usize,
            caches: [cache(2, 1 << 20), cache(3, 32 << 20)],
            stop,
        })
    }

    /// Where so many bytes live.
    fn place(&self, bytes: usize) -> &'static str {
        match self.caches {
            [second, _] if bytes <= second => "L2",
            [_, third] if bytes <= third => "L3",
            _ => "memory",
        }
    }

    /// Lines of the table for an operator and a shape.
    fn jobs(&self) -> usize {
        self.directions.len() * self.threads.len()
    }

    fn operator<T: Types<E: Word>>(
        &self,
        operator: &Operator,
        shape: &[usize],
        bar: &ProgressBar,
    ) -> Result<Vec<BenchRow>, Error> {
        let problem = problem(operator, shape)?;
        let mut tensors = tensors::<T>(operator, &problem)?;
        if self.apart > 0 {
            tensors.apart(self.apart);
        }
        let mut rows = Vec::new();
        for &direction in &self.directions {
            if direction == Direction::Backward && operator.output_gradient().is_none() {
                bar.inc(self.threads.len() as u64);
                continue;
            }
            // A forward pass that is not followed by a backward one saves nothing.
            match direction {
                Direction::Forward if operator.able.unsaved => {
                    operator.forward.saves.iter().for_each(|&slot| tensors.clear(slot));
                }
                Direction::Forward => {}
                Direction::Backward => save(operator, &problem, &mut tensors)?,
            }
            for (threads, pool) in &self.threads {
                let job = Job { bench: self, operator, problem: &problem, direction, threads: *threads };
                // With one thread, in that of the caller; else inside the pool, where calls find it.
                let row = if *threads == 1 {
                    job.measure(&mut tensors)
                } else {
                    pool.install(|| job.measure(&mut tensors))
                };
                rows.push(row?);
                bar.inc(1);
            }
        }
        Ok(rows)
    }
}

/// One line of the table.
struct Job<'a> {
    bench: &'a Bench<'a>,
    operator: &'a Operator,
    problem: &'a Problem,
    direction: Direction,
    threads: usize,
}

impl Job<'_> {
    fn measure<T: Types<E: Word>>(&self, tensors: &mut Tensors<T>) -> Result<BenchRow, Error> {
        let (operator, problem, rounds) = (self.operator, self.problem, self.bench.rounds);
        let (signature, pass) = match self.direction {
            Direction::Forward => (&operator.forward, T::kernels(operator).forward),
            Direction::Backward => (&operator.backward, T::kernels(operator).backward),
        };
        let threads = if self.threads == 1 { Threads::One } else { Threads::Pool };
        let how = How { run: self.bench.run.with_threads(threads), ..How::default() };
        let Traffic { reads, writes, bytes, spare } = Traffic::new(operator, signature, tensors);
        let copies = self.copies(&reads, &writes, problem.len(Extent::Whole) * size_of::<T::E>());

        // Calls and copies share the tensors, so they take turns by index.
        let shared = std::cell::RefCell::new((tensors, spare, Ok(())));
        let mut call = || {
            let (tensors, _, result) = &mut *shared.borrow_mut();
            *result = result.clone().and(pass(problem, &how, black_box(tensors)));
        };
        let mut copying: Vec<Box<dyn FnMut() + '_>> = copies
            .iter()
            .map(|&(way, parts)| {
                let (shared, reads, writes) = (&shared, &reads, &writes);
                Box::new(move || {
                    let (tensors, spare, _) = &mut *shared.borrow_mut();
                    copy_tensors(way, tensors, [reads, writes], spare, parts);
                }) as Box<dyn FnMut()>
            })
            .collect();
        let mut work: Vec<&mut dyn FnMut()> = vec![&mut call];
        work.extend(copying.iter_mut().map(|copy| &mut **copy as &mut dyn FnMut()));
        let times = time::interleaved(&mut work, rounds, self.bench.stop)?;
        drop(copying);
        shared.into_inner().2?;
        let ways: Vec<Way> = copies.iter().map(|(way, _)| *way).collect();
        Ok(self.row::<T>(&times, &ways, bytes))
    }

    /// The copies that may be the best: split over all threads, and, where little is to do, in one.
    fn copies(&self, reads: &[Slot], writes: &[Slot], bytes: usize) -> Vec<(Way, usize)> {
        let ways = Way::ALL.into_iter().filter(|way| way.fits(reads.len(), writes.len().max(1)));
        let parts: &[usize] = match self.threads {
            1 => &[1],
            threads if bytes <= 4 << 20 => &[1, threads],
            threads => &[threads],
        };
        ways.flat_map(|way| parts.iter().map(move |&parts| (way, parts))).collect()
    }

    /// `times`: those of the call, then those of the copies, in these ways.
    fn row<T: Types>(&self, times: &[Vec<f64>], ways: &[Way], bytes: usize) -> BenchRow {
        let ns = time::median(&times[0]);
        let copies = times[1..].iter().zip(ways);
        let best = copies.min_by(|a, b| time::median(a.0).total_cmp(&time::median(b.0)));
        let ratios =
            |copy: &Vec<f64>| times[0].iter().zip(copy).map(|(call, copy)| call / copy).collect::<Vec<_>>();
        BenchRow {
            operator: self.operator.name.into(),
            direction: if self.direction == Direction::Forward { "forward" } else { "backward" }.into(),
            dtype: T::NAME.into(),
            rows: self.problem.shape[0],
            features: self.problem.shape[1..].iter().product(),
            shape: self.problem.shape.clone(),
            threads: self.threads,
            ns,
            gbps: bytes as f64 / ns,
            ratio: best.map_or(f64::NAN, |(copy, _)| time::median(&ratios(copy))),
            copy: best.map_or("", |(_, way)| way.name()).into(),
            place: self.bench.place(bytes).into(),
        }
    }
}

/// What an operator is to do on this shape: groups as many as can be, up to the usual 32.
fn problem(operator: &Operator, shape: &[usize]) -> Result<Problem, Error> {
    let channels = shape.get(1).copied().unwrap_or(1);
    let groups = (1..=32).rev().find(|groups| channels.is_multiple_of(*groups)).unwrap_or(1);
    Problem::new(operator, shape, Options { eps: operator.eps, groups, ..Options::default() })
}

/// All tensors of an operator, in plain vectors.
fn tensors<T: Types>(operator: &Operator, problem: &Problem) -> Result<Tensors<T>, Error> {
    let mut tensors = Tensors::default();
    for slot in operator.reads().filter(|slot| !operator.untimed.contains(slot)) {
        let extent = (operator.extent)(slot);
        // An index picks from a few entries.
        let len = if extent == Extent::Entries { ENTRIES * problem.features() } else { problem.len(extent) };
        // Numbers of all sizes around 1 in no order: a Weyl sequence. Their values don't matter to the time.
        let bits = (1..=len as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let number = |bits: u64| match slot {
            Slot::Index => (bits >> 32) as f64 % ENTRIES as f64,
            Slot::RunningVar => (bits >> 11) as f64 * 2f64.powi(-52) + 0.5,
            _ => (bits >> 11) as f64 * 2f64.powi(-52) - 1.0,
        };
        tensors.fill(slot, bits.map(number));
    }
    operator.run(problem, &How::default(), &mut tensors)?;
    operator.untimed.iter().for_each(|&slot| tensors.clear(slot));
    Ok(tensors)
}

/// Entries that an index picks from.
const ENTRIES: usize = 4;

/// Runs the forward pass, for what the backward pass takes from it.
fn save<T: Types>(operator: &Operator, problem: &Problem, tensors: &mut Tensors<T>) -> Result<(), Error> {
    operator.forward.saves.iter().for_each(|&slot| operator.allot(problem, tensors, slot));
    Ok((T::kernels(operator).forward)(problem, &How::default(), tensors)?)
}

/// Bytes of a cache as Linux tells it; elsewhere, `usual`.
fn cache(level: usize, usual: usize) -> usize {
    let told = std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{level}/size")).ok();
    let kib = told.and_then(|text| text.trim().trim_end_matches('K').parse::<usize>().ok());
    kib.map_or(usual, |kib| kib << 10)
}

/// The summary for a terminal.
pub fn show(summary: &BenchSummary) -> String {
    let row = |row: &BenchRow| {
        vec![
            if row.shape.is_empty() {
                format!("{} x {}", row.rows, row.features)
            } else {
                axes(&row.shape, " x ")
            },
            row.operator.clone(),
            row.direction.clone(),
            row.dtype.clone(),
            row.place.clone(),
            row.threads.to_string(),
            duration(row.ns),
            format!("{:.1}", row.ns / row.rows as f64),
            format!("{:.1}", row.gbps),
            format!("{:.2}", row.ratio),
            row.copy.clone(),
        ]
    };
    let rows: Vec<_> = summary.rows.iter().map(row).collect();
    let headings = [
        "shape",
        "operator",
        "direction",
        "type",
        "lies in",
        "threads",
        "a call",
        "ns a row",
        "GB/s",
        "x copy",
        "best copy",
    ];
    let notes: String = summary.notes.iter().map(|note| format!("{note}\n")).collect();
    format!(
        "Times at level {}; `x copy`: in multiples of the best copy's time for the same bytes\n{}\n{notes}({:.1} s). Again: {}",
        summary.level,
        console::table(&headings, 5, &rows),
        summary.seconds,
        summary.command
    )
}

fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e4 => format!("{ns:.0} ns"),
        ns if ns < 1e7 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}

/// The command that repeats it.
fn command_line(arguments: &BenchArgs) -> String {
    let mut command = "layernorm bench".to_owned();
    let mut list = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            command += &format!(" --{name} {}", values.join(","));
        }
    };
    list("shapes", arguments.shapes.iter().map(|shape| axes(&shape.0, "x")).collect());
    list("operators", arguments.operators.iter().map(|operator| operator.name.to_owned()).collect());
    let words = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
        value().map(|value| value.get_name().to_owned()).into_iter().collect::<Vec<_>>()
    };
    list("direction", words(&|| arguments.direction?.to_possible_value()));
    if arguments.dtype != Dtype::default() {
        list("dtype", words(&|| arguments.dtype.to_possible_value()));
    }
    list("level", arguments.level.iter().map(Level::to_string).collect());
    list("threads", arguments.threads.iter().map(usize::to_string).collect());
    list("rounds", arguments.rounds.iter().map(u16::to_string).collect());
    if arguments.apart > 0 {
        list("apart", vec![arguments.apart.to_string()]);
    }
    if arguments.quick { command + " --quick" } else { command }
}
