//! The arguments of a call: right at first, then one of them wrong.

use layernorm::{
    Batch, BatchMut, Error, Images, Layout, Modulation, ParamGradients, Params, Rows, RowsMut, Run, ScaleIs,
    StatsMut, StatsRef, Workspace,
};

/// What everything holds before a call, inputs too.
pub(crate) const SENTINEL: f32 = 12352.0;

/// Features of a row.
pub(crate) const N: usize = 4;

/// A function, which of its arguments can be wrong, and how it is called.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// Arguments that have a length.
    pub(crate) lengths: &'static [&'static str],
    /// Lengths that are right, where they are not the usual ones.
    pub(crate) right: &'static [(&'static str, usize)],
    /// Arguments that are a number.
    pub(crate) numbers: &'static [Number],
    /// Does it take an epsilon?
    pub(crate) eps: bool,
    /// Does it take a level?
    pub(crate) runs: bool,
    pub(crate) call: fn(&mut Call) -> Result<(), Error>,
}

/// A line of a table.
macro_rules! entry {
    ($name:ident, [$($length:literal)*], $(right [$($right:expr),*],)? $(numbers [$($number:ident)*],)? $(+ $flag:ident,)* |$of:pat_param| $call:expr) => {
        $crate::call::Entry {
            name: stringify!($name),
            lengths: &[$($length),*],
            $(right: &[$($right),*],)?
            $(numbers: &[$($crate::call::Number::$number),*],)?
            $($flag: true,)*
            call: |$of| $call,
            ..$crate::call::Entry::PLAIN
        }
    };
}
pub(crate) use entry;

impl Entry {
    pub(crate) const PLAIN: Self =
        Self { name: "", lengths: &[], right: &[], numbers: &[], eps: false, runs: true, call: |_| Ok(()) };
}

/// What is wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wrong {
    Nothing,
    Length(&'static str, usize),
    Eps(f64),
    Number(Number, usize),
    Run(Run),
}

/// An argument that is a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    /// Index of the first row.
    First,
    Groups,
    Axis,
    /// The first axis of a shape.
    Size,
    Heads,
    /// The first row's index into a table.
    Index,
    /// Features that partial statistics are of.
    Partial,
}

impl Number {
    /// Among 4 channels, 2 axes, 6 rows of 4 features, 2 entries.
    pub(crate) fn wrong(self) -> &'static [usize] {
        match self {
            Self::First => &[usize::MAX],
            Self::Groups => &[0, 3, 8],
            Self::Axis => &[2, usize::MAX],
            Self::Size => &[usize::MAX],
            Self::Heads => &[0, 4, usize::MAX],
            Self::Index => &[2, usize::MAX],
            Self::Partial => &[0, 5, usize::MAX],
        }
    }
}

/// Defines [`Call`]: arguments with a length that is usually right, and the step between lengths.
macro_rules! arguments {
    ($($name:ident: $right:expr, $step:expr;)*) => {
        pub(crate) struct Call {
            $(pub(crate) $name: Vec<f32>,)*
            pub(crate) eps: f64,
            pub(crate) run: Run,
            pub(crate) first: usize,
            pub(crate) groups: usize,
            pub(crate) axis: usize,
            pub(crate) shape: [usize; 2],
            pub(crate) heads: usize,
            pub(crate) index: Vec<usize>,
            pub(crate) partial: usize,
            pub(crate) workspace: Workspace<f32>,
            pub(crate) second: Workspace<f32>,
        }

        impl Call {
            /// How long an argument must be, and by what it grows.
            pub(crate) fn length(entry: &Entry, name: &str) -> (usize, usize) {
                let (usual, step) = match name {
                    $(stringify!($name) => ($right, $step),)*
                    "index" => (6, 1),
                    other => panic!("{other} is no argument"),
                };
                let own = entry.right.iter().find(|(of, _)| *of == name);
                (own.map_or(usual, |(_, right)| *right), step)
            }

            pub(crate) fn new(entry: &Entry, wrong: Wrong) -> Self {
                let len = |name: &str| match wrong {
                    Wrong::Length(of, len) if of == name => len,
                    _ => Self::length(entry, name).0,
                };
                let mut call = Self {
                    $($name: vec![SENTINEL; len(stringify!($name))],)*
                    eps: if let Wrong::Eps(eps) = wrong { eps } else { 1e-5 },
                    run: if let Wrong::Run(run) = wrong { run } else { Run::default() },
                    first: 0,
                    groups: 2,
                    axis: 1,
                    shape: [6, 4],
                    heads: 3,
                    index: vec![0; len("index")],
                    partial: 4,
                    workspace: Workspace::new(),
                    second: Workspace::new(),
                };
                if let Wrong::Number(number, value) = wrong {
                    match number {
                        Number::First => call.first = value,
                        Number::Groups => call.groups = value,
                        Number::Axis => call.axis = value,
                        Number::Size => call.shape[0] = value,
                        Number::Heads => call.heads = value,
                        Number::Index => call.index[0] = value,
                        Number::Partial => call.partial = value,
                    }
                }
                call
            }

            /// Is everything as it was?
            pub(crate) fn untouched(&self) -> bool {
                [$(&self.$name),*].into_iter().flatten().all(|number| *number == SENTINEL)
            }
        }
    };
}

arguments! {
    x: 24, N;
    y: 24, N;
    dy: 24, N;
    dx: 24, N;
    weight: 4, 1;
    bias: 4, 1;
    dweight: 4, 1;
    dbias: 4, 1;
    m: 6, 1;
    c: 6, 1;
    rstd: 6, 1;
    residual: 24, N;
    out: 24, N;
    upstream: 24, N;
    dresidual: 24, N;
    mask: 24, N;
    branch_bias: 4, 1;
    dbranch_bias: 4, 1;
    scale: 8, N;
    shift: 8, N;
    gate: 8, N;
    dscale: 8, N;
    dshift: 8, N;
    dgate: 8, N;
    scales: 6, 1;
    gain: 6, 1;
    dgain: 6, 1;
    mean: 4, 1;
    var: 4, 1;
}

/// Rows of [`N`], as many as there are.
pub(crate) fn rows(of: &[f32]) -> Rows<'_, f32> {
    Rows::new(of, N).expect("whole rows")
}

pub(crate) fn rows_mut(of: &mut [f32]) -> RowsMut<'_, f32> {
    RowsMut::new(of, N).expect("whole rows")
}

/// The rows as samples of four channels of one position.
pub(crate) fn batch(of: &[f32]) -> Batch<'_, f32> {
    Batch::channels_first(rows(of), N).expect("four channels")
}

pub(crate) fn batch_mut(of: &mut [f32]) -> BatchMut<'_, f32> {
    BatchMut::channels_first(rows_mut(of), N).expect("four channels")
}

/// Three samples of four channels of two positions.
pub(crate) fn images() -> Images {
    Images::new(3, 4, &[2], Layout::ChannelsFirst).expect("a shape")
}

pub(crate) fn params<'a>(weight: &'a [f32], bias: &'a [f32], eps: f64) -> Params<'a, f32> {
    Params { weight: Some(weight), bias: Some(bias), eps }
}

pub(crate) fn modulation<'a>(scale: &'a [f32], shift: &'a [f32], eps: f64) -> Modulation<'a, f32> {
    Modulation { scale: rows(scale), shift: Some(rows(shift)), scale_is: ScaleIs::AboveOne, eps }
}

pub(crate) fn sums<'a>(
    dweight: &'a mut [f32],
    dbias: &'a mut [f32],
    first_row: usize,
    workspace: &'a mut Workspace<f32>,
) -> ParamGradients<'a, f32> {
    ParamGradients { dweight: Some(dweight), dbias: Some(dbias), accumulate: true, first_row, workspace }
}

pub(crate) fn stats_mut<'a>(m: &'a mut [f32], c: &'a mut [f32], rstd: &'a mut [f32]) -> StatsMut<'a, f32> {
    StatsMut { m, c, rstd }
}

pub(crate) fn stats<'a>(m: &'a [f32], c: &'a [f32], rstd: &'a [f32]) -> StatsRef<'a, f32> {
    StatsRef { m, c, rstd }
}
