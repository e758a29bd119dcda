//! A call of batch norm as a value, and everything that comes out of it.

use half::{bf16, f16};
use layernorm::{
    Batch, BatchGradients, BatchMut, Element, Error, Level, ParamGradients, Params, Reducer, Rows, RowsMut,
    Run, RunningMut, Stats, Threads, Trained, Training, Valid, Workspace, batch_norm_train,
    batch_norm_train_backward, batch_norm_train_backward_in_place, batch_norm_train_in_place,
};
use std::fmt::Debug;

/// A number, and f64.
pub(crate) trait Base: Copy + PartialEq {
    /// Half the distance from 1 to the next number.
    const U: f64;
    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
}

/// A type that tensors have.
pub(crate) trait Kind: Element<Acc: Wide> + Base {}

impl<E: Element<Acc: Wide> + Base> Kind for E {}

/// A type that sums have.
pub(crate) trait Wide: layernorm::Real + Base {
    const W: usize;
    const B: usize;
    fn fused(self, a: Self, b: Self) -> Self;
    fn plus(self, b: Self) -> Self;
    fn times(self, b: Self) -> Self;
    fn over(self, b: Self) -> Self;
    fn root(self) -> Self;
}

macro_rules! kind {
    ($t:ident, $u:expr, $of:expr, $wide:expr) => {
        impl Base for $t {
            const U: f64 = $u;
            fn of(value: f64) -> Self {
                $of(value)
            }
            fn wide(self) -> f64 {
                $wide(self)
            }
        }
    };
}

macro_rules! wide {
    ($t:ident, $lanes:literal, $block:literal) => {
        impl Wide for $t {
            const W: usize = $lanes;
            const B: usize = $block;
            fn fused(self, a: Self, b: Self) -> Self {
                self.mul_add(a, b)
            }
            fn plus(self, b: Self) -> Self {
                self + b
            }
            fn times(self, b: Self) -> Self {
                self * b
            }
            fn over(self, b: Self) -> Self {
                self / b
            }
            fn root(self) -> Self {
                self.sqrt()
            }
        }
    };
}

kind!(f32, (f32::EPSILON / 2.0) as f64, |x| x as f32, f64::from);
kind!(f64, f64::EPSILON / 2.0, |x| x, |x| x);
kind!(f16, f16::EPSILON.to_f64_const() / 2.0, f16::from_f64, f64::from);
kind!(bf16, bf16::EPSILON.to_f64_const() / 2.0, bf16::from_f64, f64::from);
wide!(f32, 32, 256);
wide!(f64, 16, 128);

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (f64::EPSILON / 2.0)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }

    /// Nearly normal.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    pub(crate) fn normals<E: Base>(&mut self, len: usize) -> Vec<E> {
        (0..len).map(|_| E::of(self.normal())).collect()
    }
}

/// Which positions are valid.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Which {
    All,
    Lengths(Vec<usize>),
    Mask(Vec<bool>),
}

impl Which {
    pub(crate) fn as_valid(&self) -> Valid<'_> {
        match self {
            Self::All => Valid::All,
            Self::Lengths(lengths) => Valid::Lengths(lengths),
            Self::Mask(mask) => Valid::Mask(mask),
        }
    }

    pub(crate) fn holds(&self, sample: usize, position: usize, positions: usize) -> bool {
        match self {
            Self::All => true,
            Self::Lengths(lengths) => position < lengths[sample],
            Self::Mask(mask) => mask[sample * positions + position],
        }
    }
}

/// Numbers lie as `last` says.
#[derive(Debug, Clone)]
pub(crate) struct Problem<E: Kind> {
    pub(crate) last: bool,
    pub(crate) samples: usize,
    pub(crate) channels: usize,
    pub(crate) positions: usize,
    pub(crate) x: Vec<E>,
    pub(crate) dy: Vec<E>,
    pub(crate) weight: Option<Vec<E>>,
    pub(crate) bias: Option<Vec<E>>,
    pub(crate) eps: f64,
    pub(crate) which: Which,
    /// Index of the first row, of the backward pass.
    pub(crate) first: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Results<E: Element> {
    pub(crate) y: Vec<E>,
    pub(crate) saved: Stats<E::Acc>,
    pub(crate) dx: Vec<E>,
    pub(crate) dweight: Vec<E::Acc>,
    pub(crate) dbias: Vec<E::Acc>,
}

/// How a problem is run.
#[derive(Clone, Copy)]
pub(crate) struct How<'a> {
    pub(crate) run: Run,
    pub(crate) in_place: bool,
    /// Numbers between rows, and before the first.
    pub(crate) apart: usize,
    pub(crate) reducer: Option<&'a dyn Reducer>,
}

pub(crate) fn at(level: Level) -> How<'static> {
    let run = Run::default().with_level(level).with_threads(Threads::One).with_stream_from(2 << 20);
    How { run, in_place: false, apart: 0, reducer: None }
}

pub(crate) const HOLE: f64 = -1234.5;

impl<E: Kind> Problem<E> {
    pub(crate) fn new(last: bool, [samples, channels, positions]: [usize; 3], random: &mut Random) -> Self {
        let len = samples * channels * positions;
        let parameter = |random: &mut Random| match random.below(3) {
            0 => None,
            1 => Some(random.normals(1)),
            _ => Some(random.normals(channels)),
        };
        let (x, dy) = (random.normals(len), random.normals(len));
        let (weight, bias) = (parameter(random), parameter(random));
        let eps = [0.0, 1e-5, 1e-3, 1.0][random.below(4)];
        Self { last, samples, channels, positions, x, dy, weight, bias, eps, which: Which::All, first: 0 }
    }

    /// Numbers in a row.
    pub(crate) fn row(&self) -> usize {
        if self.last { self.channels } else { self.channels * self.positions }
    }

    pub(crate) fn rows(&self) -> usize {
        if self.last { self.samples * self.positions } else { self.samples }
    }

    /// Where a number lies.
    pub(crate) fn at(&self, sample: usize, channel: usize, position: usize) -> usize {
        if self.last {
            (sample * self.positions + position) * self.channels + channel
        } else {
            (sample * self.channels + channel) * self.positions + position
        }
    }

    /// The numbers of a channel, as places: by samples and positions.
    pub(crate) fn places(&self, channel: usize) -> Vec<usize> {
        (0..self.samples * self.positions)
            .map(|i| self.at(i / self.positions, channel, i % self.positions))
            .collect()
    }

    /// Which of them are valid.
    pub(crate) fn valid(&self) -> Vec<bool> {
        (0..self.samples * self.positions)
            .map(|i| self.which.holds(i / self.positions, i % self.positions, self.positions))
            .collect()
    }

    pub(crate) fn params(&self) -> Params<'_, E> {
        Params { weight: self.weight.as_deref(), bias: self.bias.as_deref(), eps: self.eps }
    }

    fn spread(&self, values: &[E], apart: usize) -> Vec<E> {
        let mut memory = vec![E::of(HOLE); apart];
        for row in values.chunks(self.row()) {
            memory.extend_from_slice(row);
            memory.extend(vec![E::of(HOLE); apart]);
        }
        memory
    }

    fn gathered(&self, memory: &[E], apart: usize) -> Vec<E> {
        let stride = self.row() + apart;
        let holes = memory.iter().take(apart);
        assert!(
            holes
                .chain(memory[apart..].chunks(stride).flat_map(|row| &row[self.row()..]))
                .all(|hole| *hole == E::of(HOLE)),
            "a hole was written"
        );
        memory[apart..].chunks(stride).flat_map(|row| row[..self.row()].to_vec()).collect()
    }

    fn batch<'a>(&self, memory: &'a [E], apart: usize) -> Batch<'a, E> {
        let rows = Rows::strided(&memory[apart..], self.rows(), self.row(), self.row() + apart).unwrap();
        if self.last {
            Batch::channels_last(rows, self.positions)
        } else {
            Batch::channels_first(rows, self.channels)
        }
        .unwrap()
    }

    fn batch_mut<'a>(&self, memory: &'a mut [E], apart: usize) -> BatchMut<'a, E> {
        let rows =
            RowsMut::strided(&mut memory[apart..], self.rows(), self.row(), self.row() + apart).unwrap();
        if self.last {
            BatchMut::channels_last(rows, self.positions)
        } else {
            BatchMut::channels_first(rows, self.channels)
        }
        .unwrap()
    }

    pub(crate) fn view<'a>(&self, numbers: &'a [E]) -> Batch<'a, E> {
        self.batch(numbers, 0)
    }

    pub(crate) fn view_mut<'a>(&self, numbers: &'a mut [E]) -> BatchMut<'a, E> {
        self.batch_mut(numbers, 0)
    }

    /// A forward pass that moves running statistics; gives those of the batch.
    pub(crate) fn train(&self, running: RunningMut<'_, E::Acc>, level: Level) -> Stats<E::Acc> {
        let (mut saved, mut workspace) = (Stats::new(self.channels), Workspace::new());
        let training = Training { running: Some(running), ..Training::new(saved.as_mut(), &mut workspace) };
        let mut y = self.x.clone();
        batch_norm_train(self.view(&self.x), self.params(), self.view_mut(&mut y), training, at(level).run)
            .unwrap();
        saved
    }

    pub(crate) fn run(&self, how: How<'_>) -> Results<E> {
        self.try_run(how).unwrap()
    }

    pub(crate) fn try_run(&self, how: How<'_>) -> Result<Results<E>, Error> {
        let How { run, in_place, apart, reducer } = how;
        let (x, dy) = (self.spread(&self.x, apart), self.spread(&self.dy, apart));
        let mut workspace = Workspace::new();
        let mut saved = Stats::new(self.channels);
        let valid = self.which.as_valid();
        let mut y = if in_place { x.clone() } else { self.spread(&vec![E::of(HOLE); self.x.len()], apart) };
        let training = Training { valid, reducer, ..Training::new(saved.as_mut(), &mut workspace) };
        if in_place {
            batch_norm_train_in_place(self.batch_mut(&mut y, apart), self.params(), training, run)?;
        } else {
            batch_norm_train(
                self.batch(&x, apart),
                self.params(),
                self.batch_mut(&mut y, apart),
                training,
                run,
            )?;
        }
        let gradient =
            |of: &Option<Vec<E>>| vec![E::Acc::of(HOLE); of.as_ref().map_or(self.channels, Vec::len)];
        let (mut dweight, mut dbias) = (gradient(&self.weight), gradient(&self.bias));
        let mut dx = if in_place { dy.clone() } else { self.spread(&vec![E::of(HOLE); self.x.len()], apart) };
        let params = ParamGradients {
            dweight: Some(&mut dweight),
            dbias: Some(&mut dbias),
            accumulate: false,
            first_row: self.first,
            workspace: &mut workspace,
        };
        let of = Trained { valid, reducer, saved: saved.as_ref() };
        let x = self.batch(&x, apart);
        if in_place {
            let dy = self.batch_mut(&mut dx, apart);
            batch_norm_train_backward_in_place(x, dy, self.params(), of, params, run)?;
        } else {
            let gradients = BatchGradients { dx: Some(self.batch_mut(&mut dx, apart)), params };
            batch_norm_train_backward(x, self.batch(&dy, apart), self.params(), of, gradients, run)?;
        }
        let (y, dx) = (self.gathered(&y, apart), self.gathered(&dx, apart));
        Ok(Results { y, saved, dx, dweight, dbias })
    }
}

/// The same bits, where any NaN is like any other.
#[track_caller]
pub(crate) fn assert_bits<E: Base>(what: &str, left: &[E], right: &[E]) {
    assert_eq!(left.len(), right.len(), "{what}");
    for (i, (left, right)) in left.iter().zip(right).enumerate() {
        let [left, right] = [left.wide(), right.wide()];
        let same = left.to_bits() == right.to_bits() || left.is_nan() && right.is_nan();
        assert!(same, "{what}[{i}]: {left:e} and {right:e}");
    }
}

#[track_caller]
pub(crate) fn assert_same<E: Kind + Debug>(what: &str, left: &Results<E>, right: &Results<E>) {
    assert_bits(&format!("{what}: m"), &left.saved.m, &right.saved.m);
    assert_bits(&format!("{what}: c"), &left.saved.c, &right.saved.c);
    assert_bits(&format!("{what}: rstd"), &left.saved.rstd, &right.saved.rstd);
    assert_bits(&format!("{what}: y"), &left.y, &right.y);
    assert_bits(&format!("{what}: dweight"), &left.dweight, &right.dweight);
    assert_bits(&format!("{what}: dbias"), &left.dbias, &right.dbias);
    assert_bits(&format!("{what}: dx"), &left.dx, &right.dx);
}

/// Every way to run a problem that must show in no bit.
pub(crate) fn ways() -> Vec<(String, How<'static>)> {
    let mut ways = vec![];
    // One level under Miri: the last, whose registers are the widest.
    let levels: Vec<_> = Level::available().collect();
    for level in levels.into_iter().rev().take(if cfg!(miri) { 1 } else { usize::MAX }) {
        let placed: &[_] =
            if cfg!(miri) { &[(3, true)] } else { &[(0, false), (0, true), (3, false), (17, true)] };
        for (apart, in_place) in placed.iter().copied() {
            ways.push((
                format!("{level}, {apart} apart, in place {in_place}"),
                How { apart, in_place, ..at(level) },
            ));
        }
        for apart in [0, 3] {
            let run = at(level).run.with_stream_from(0);
            ways.push((format!("{level}, {apart} apart, past the caches"), How { apart, run, ..at(level) }));
        }
        #[cfg(feature = "rayon")]
        ways.push((
            format!("{level}, threads"),
            How { run: at(level).run.with_threads(Threads::Pool), ..at(level) },
        ));
    }
    ways
}

/// Samples, channels, positions. Few under Miri, which is slow: they take every way through the unsafe code.
pub(crate) const SHAPES: &[[usize; 3]] = if cfg!(miri) { &[[9, 3, 2], [3, 17, 1]] } else { &ALL_SHAPES };

const ALL_SHAPES: [[usize; 3]; 24] = [
    [3, 131, 7],
    [5, 320, 4],
    [2, 1, 1],
    [1, 1, 2],
    [1, 3, 5],
    [3, 5, 7],
    [8, 16, 1],
    [9, 17, 4],
    [7, 33, 2],
    [17, 3, 33],
    [33, 2, 300],
    [4, 70, 1],
    [300, 5, 1],
    [5, 1, 1030],
    [2, 9, 257],
    [16, 8, 49],
    [64, 1, 1],
    [65, 2, 1],
    [1, 40, 3],
    [6, 129, 1],
    [10, 31, 9],
    [20, 15, 16],
    [12, 64, 64],
    [3, 1, 16384],
];
