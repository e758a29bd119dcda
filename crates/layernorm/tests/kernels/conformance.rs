//! The published vectors, `docs/conformance/order-0.txt`: what is there is what the naive implementation and
//! the kernels give at every level. Written anew from the naive implementation, after a change of the order, by
//! `LAYERNORM_WRITE_CONFORMANCE=1 cargo test -p layernorm --test kernels conformance`.

use crate::case::{Case, Many, Norm, Results};
use crate::level::{at, levels};
use crate::naive;
use crate::number::{Stored, Value, bits, power_of_two};
use crate::random::Random;
use half::{bf16, f16};
use layernorm::ORDER_VERSION;
use std::fmt::Write;
use std::path::PathBuf;

const WRITE: &str = "LAYERNORM_WRITE_CONFORMANCE";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../docs/conformance/order-{ORDER_VERSION}.txt"))
}

/// Where numbers come from: written out, or by the rule of the file's head.
enum Input<T> {
    Given(Vec<T>),
    Rule { seed: u64, len: usize },
}

/// The rule: integers of 24 bits, less 2^23, over 2^20. Exact in f32, rounded once in halves.
fn by_rule<T: Value>(seed: u64, len: usize) -> Vec<T> {
    let mut random = Random::new(seed);
    (0..len).map(|_| T::of(((random.bits() >> 40) as f64 - power_of_two(23)) * power_of_two(-20))).collect()
}

impl<T: Value> Input<T> {
    fn numbers(&self) -> Vec<T> {
        match self {
            Self::Given(numbers) => numbers.clone(),
            Self::Rule { seed, len } => by_rule(*seed, *len),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Given(numbers) => hex(numbers),
            Self::Rule { seed, len } => format!("rule {seed} {len}"),
        }
    }

    fn parse(text: &str) -> Self {
        match text.strip_prefix("rule ") {
            None => Self::Given(parse_hex(text)),
            Some(rule) => {
                let (seed, len) = rule.split_once(' ').unwrap();
                Self::Rule { seed: seed.parse().unwrap(), len: len.parse().unwrap() }
            }
        }
    }
}

fn hex<T: Value>(numbers: &[T]) -> String {
    let width = 2 * size_of::<T>();
    let one = |x: &T| if x.wide().is_nan() { "nan".to_owned() } else { format!("{:0width$x}", x.bits()) };
    numbers.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn parse_hex<T: Value>(text: &str) -> Vec<T> {
    let one = |word| {
        if word == "nan" { T::of(f64::NAN) } else { T::of_bits(u64::from_str_radix(word, 16).unwrap()) }
    };
    text.split_ascii_whitespace().map(one).collect()
}

/// FNV-1a over the bytes of the bits, lowest first; of a NaN, the bytes of all ones.
fn digest<T: Value>(numbers: &[T]) -> String {
    let bytes = numbers.iter().flat_map(|x| bits(*x).to_le_bytes().into_iter().take(size_of::<T>()));
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("digest {:016x}", bytes.fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// Long outputs are published as a digest.
fn output<T: Value>(numbers: &[T]) -> String {
    if numbers.len() <= 40 { hex(numbers) } else { digest(numbers) }
}

fn results<E: Stored>(of: &Results<E>) -> [(&'static str, String); 7] {
    [
        ("y", output(&of.y)),
        ("m", output(&of.m)),
        ("c", output(&of.c)),
        ("rstd", output(&of.rstd)),
        ("dx", output(&of.dx)),
        ("dweight", output(&of.dweight)),
        ("dbias", output(&of.dbias)),
    ]
}

/// Parameters as the case has them, from elements.
fn widened<E: Stored>(numbers: &[E]) -> Vec<E::Acc> {
    numbers.iter().map(|number| number.acc()).collect()
}

/// One vector: the case, and its inputs as they are published.
struct Vector<T: Stored> {
    case: Case<T>,
    inputs: [Input<T>; 2],
}

impl<E: Stored> Vector<E> {
    fn new(norm: Norm, n: usize, inputs: [Input<E>; 2], seed: u64) -> Self {
        let [x, dy] = [inputs[0].numbers(), inputs[1].numbers()];
        let mut random = Random::new(seed);
        let mut parameter = |many: Many| {
            let len = match many {
                Many::Absent => return None,
                Many::Shared => 1,
                Many::PerUnit => n,
            };
            Some(widened(&by_rule::<E>(random.bits() >> 32, len)))
        };
        let many = |k: u64| Many::ALL[(seed / k % 3) as usize];
        // A parameter a feature is written out, so long rows have few.
        let short = |many: Many| if n > 70 && many == Many::PerUnit { Many::Shared } else { many };
        let (weight, bias) = (parameter(short(many(1))), parameter(short(many(3))));
        let eps = [0.0, 1e-5, 1e-6, power_of_two(-10)][(seed % 4) as usize];
        let first_row = [0, 0, 5, 8, 1001][(seed % 5) as usize];
        Self { case: Case { norm, n, x, dy, weight, bias, wide: false, eps, first_row }, inputs }
    }

    fn text(&self) -> String {
        let Case { norm, n, eps, first_row, weight, bias, .. } = &self.case;
        let name = if *norm == Norm::Layer { "layer_norm" } else { "rms_norm" };
        let mut text = format!("\nvector {name} {} {n} {first_row} {:016x}\n", E::NAME, eps.to_bits());
        for (name, input) in ["x", "dy"].iter().zip(&self.inputs) {
            writeln!(text, "{name} {}", input.text()).unwrap();
        }
        for (name, parameter) in [("weight", weight), ("bias", bias)] {
            let elements = |numbers: &Vec<E::Acc>| numbers.iter().map(|x| E::round(*x)).collect::<Vec<_>>();
            let numbers = parameter.as_ref().map_or("absent".to_owned(), |of| hex(&elements(of)));
            writeln!(text, "{name} {numbers}").unwrap();
        }
        for (name, numbers) in results(&naive::run(&self.case)) {
            writeln!(text, "{name} {numbers}").unwrap();
        }
        text
    }
}

/// Short rows, written out: ordinary, of large mean, constant, out of range, with a NaN.
fn short<T: Value>(n: usize, seed: u64) -> [Input<T>; 2] {
    let ordinary = by_rule::<T>(seed, n);
    let row = |value: &dyn Fn(usize) -> f64| -> Vec<T> { (0..n).map(|j| T::of(value(j))).collect() };
    let ([smallest, largest], far) = (T::EXPONENTS, if T::GREATEST < 1e5 { 1e3 } else { 1e5 });
    let scaled = |exponent: i32| row(&|j| ordinary[j].wide() / 8.0 * power_of_two(exponent));
    let x = [
        ordinary.clone(),
        row(&|j| ordinary[j].wide() + far),
        row(&|_| 0.1),
        scaled(largest),
        scaled(largest / 2),
        scaled(smallest / 2),
        scaled(smallest + 12),
        row(&|j| if j == n / 2 { f64::NAN } else { j as f64 }),
        row(&|_| T::GREATEST),
    ];
    let dy = by_rule(seed + 1, x.len() * n);
    [Input::Given(x.concat()), Input::Given(dy)]
}

fn vectors<E: Stored>() -> Vec<Vector<E>> {
    let mut all = vec![];
    let mut seed = 0;
    for norm in Norm::BOTH {
        for n in [1, 2, 3, 4, 5] {
            seed += 1;
            all.push(Vector::new(norm, n, short(n, seed), seed));
        }
        let long = [
            (7, 9),
            (33, 40),
            (1000, 3),
            (16, 70),
            (9, 255),
            (9, 256),
            (3, 513),
            (2, 1025),
            (2, 5000),
            (1, 70_000),
        ];
        for (rows, n) in long {
            seed += 1;
            let rule = |seed| Input::Rule { seed, len: rows * n };
            all.push(Vector::new(norm, n, [rule(2 * seed), rule(2 * seed + 1)], seed));
        }
    }
    all
}

fn file() -> String {
    fn of<E: Stored>() -> String {
        vectors::<E>().iter().map(Vector::text).collect()
    }
    let vectors = [of::<f32>(), of::<f64>(), of::<f16>(), of::<bf16>()];
    format!(
        "# Conformance vectors of layernorm, order version {ORDER_VERSION}. README.md says how to read them.\n{}",
        vectors.concat()
    )
}

/// A vector of the file, by its lines.
fn check<E: Stored>(head: &[&str], lines: &[&str]) {
    let find = |name: &str| {
        let line = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{head:?} has no {name}"))
    };
    let parameter = |name: &str| {
        Some(find(name)).filter(|text| *text != "absent").map(|text| widened(&parse_hex::<E>(text)))
    };
    let case = Case {
        norm: if head[0] == "layer_norm" { Norm::Layer } else { Norm::Rms },
        n: head[2].parse().unwrap(),
        wide: false,
        first_row: head[3].parse().unwrap(),
        eps: f64::from_bits(u64::from_str_radix(head[4], 16).unwrap()),
        x: Input::<E>::parse(find("x")).numbers(),
        dy: Input::<E>::parse(find("dy")).numbers(),
        weight: parameter("weight"),
        bias: parameter("bias"),
    };
    let mut all = vec![("naive".to_owned(), naive::run(&case))];
    all.extend(levels().iter().map(|level| (level.to_string(), case.run(at(*level)))));
    for (of, got) in &all {
        for (name, got) in results(got) {
            // No m and c of RMS norm: then the line is empty.
            assert_eq!(got, find(name), "{head:?}: {name} of {of}");
        }
    }
}

#[test]
fn the_published_vectors() {
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(path(), file()).unwrap();
    }
    let text = include_str!("../../../../docs/conformance/order-0.txt");
    if std::env::var_os(WRITE).is_some() {
        return; // what is compiled in is the old file
    }
    let mut count = 0;
    for vector in text.split("\nvector ").skip(1) {
        let lines: Vec<&str> = vector.lines().collect();
        let head: Vec<&str> = lines[0].split(' ').collect();
        match head[1] {
            "f32" => check::<f32>(&head, &lines[1..]),
            "f64" => check::<f64>(&head, &lines[1..]),
            "f16" => check::<f16>(&head, &lines[1..]),
            "bf16" => check::<bf16>(&head, &lines[1..]),
            other => panic!("{other}?"),
        }
        count += 1;
    }
    assert_eq!(count, 120, "vectors in the file");
}

/// The file is what this one writes, so nobody edits it by hand, and the rule in the README is this rule.
#[test]
fn the_published_file_is_the_generators() {
    if std::env::var_os(WRITE).is_none() {
        assert!(file() == include_str!("../../../../docs/conformance/order-0.txt"), "see {WRITE}");
    }
}
