//! A call of the kernels as a value: what goes in, and everything that comes out, forward and backward.

use crate::number::{Number, difference};
use crate::random::Random;
use crate::rows::{self, Shape};
use layernorm::{
    Error, Gradients, ParamGradients, Params, Rows, RowsMut, Run, StatsMut, StatsRef, Workspace,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Norm {
    Layer,
    Rms,
}

impl Norm {
    pub(crate) const BOTH: [Self; 2] = [Self::Layer, Self::Rms];
}

/// How many numbers a parameter has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Many {
    Absent,
    Shared,
    PerUnit,
}

impl Many {
    pub(crate) const ALL: [Self; 3] = [Self::Absent, Self::Shared, Self::PerUnit];

    fn numbers<T: Number>(self, n: usize, mut number: impl FnMut() -> f64) -> Option<Vec<T>> {
        let len = match self {
            Self::Absent => return None,
            Self::Shared => 1,
            Self::PerUnit => n,
        };
        Some((0..len).map(|_| T::of(number())).collect())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Case<T> {
    pub(crate) norm: Norm,
    /// Features in a row, at least one.
    pub(crate) n: usize,
    pub(crate) x: Vec<T>,
    pub(crate) dy: Vec<T>,
    pub(crate) weight: Option<Vec<T>>,
    pub(crate) bias: Option<Vec<T>>,
    pub(crate) eps: f64,
    pub(crate) first_row: usize,
}

/// All that a forward and a backward pass give. RMS norm has no m and no c.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Results<T> {
    pub(crate) y: Vec<T>,
    pub(crate) m: Vec<T>,
    pub(crate) c: Vec<T>,
    pub(crate) rstd: Vec<T>,
    pub(crate) dx: Vec<T>,
    pub(crate) dweight: Vec<T>,
    pub(crate) dbias: Vec<T>,
}

pub(crate) const EPSILONS: [f64; 8] = [0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-3, 1.0, 1e10];

impl<T: Number> Case<T> {
    /// Rows, with gradients and parameters drawn for them.
    pub(crate) fn new(norm: Norm, x: Vec<T>, n: usize, random: &mut Random) -> Self {
        let dy = (0..x.len()).map(|_| T::of(random.normal())).collect();
        let many = [random.pick(&Many::ALL), random.pick(&Many::ALL)];
        let eps = random.pick(&EPSILONS);
        Self { norm, n, x, dy, weight: None, bias: None, eps, first_row: 0 }.with_params(many, random)
    }

    pub(crate) fn with_params(self, [weight, bias]: [Many; 2], random: &mut Random) -> Self {
        let weight = weight.numbers(self.n, || random.sign() * (0.5 + random.unit()));
        let bias = bias.numbers(self.n, || random.normal());
        Self { weight, bias, ..self }
    }

    /// Rows of all shapes, some at the ends of the range, few with numbers that are none.
    pub(crate) fn random(norm: Norm, rows: usize, n: usize, random: &mut Random) -> Self {
        let scales = rows::scales::<T>();
        let mut x = Vec::with_capacity(rows * n);
        for _ in 0..rows {
            let row = random.pick(&Shape::ALL).row(random, n);
            x.extend(match random.below(16) {
                0 => rows::scaled(&row, random.pick(&scales)),
                1 => vec![T::of(random.normal() * 10.0); n],
                2 | 3 => rows::rounded(&row),
                kind => {
                    let mean = random.pick(&[0.0, 0.0, 1.0, 1e2, 1e5]);
                    let mut row = rows::rounded(&rows::with_mean(random, row, mean));
                    if kind == 4 && random.below(4) == 0 {
                        let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 3e38];
                        row[random.below(n)] = T::of(random.pick(&special));
                    }
                    row
                }
            });
        }
        Self { first_row: random.pick(&[0, 0, 1, 5, 8, 64, 1003]), ..Self::new(norm, x, n, random) }
    }

    pub(crate) fn rows(&self) -> usize {
        self.x.len() / self.n
    }

    pub(crate) fn params(&self) -> Params<'_, T> {
        Params { weight: self.weight.as_deref(), bias: self.bias.as_deref(), eps: self.eps }
    }

    /// Rows of the case as one of its own.
    pub(crate) fn part(&self, rows: std::ops::Range<usize>) -> Self {
        let of = |numbers: &[T]| numbers[rows.start * self.n..rows.end * self.n].to_vec();
        Self { x: of(&self.x), dy: of(&self.dy), first_row: self.first_row + rows.start, ..self.clone() }
    }

    /// Room for results, full of a number that is none of them.
    pub(crate) fn blank(&self) -> Results<T> {
        let fill = |len: usize| vec![T::of(SENTINEL); len];
        let gradient = |of: &Option<Vec<T>>| fill(of.as_ref().map_or(self.n, Vec::len));
        let (rows, len) = (self.rows(), self.x.len());
        let centre = if self.norm == Norm::Layer { rows } else { 0 };
        Results {
            y: fill(len),
            m: fill(centre),
            c: fill(centre),
            rstd: fill(rows),
            dx: fill(len),
            dweight: gradient(&self.weight),
            dbias: gradient(&self.bias),
        }
    }

    /// Forward and backward of contiguous rows, with saved statistics.
    pub(crate) fn run(&self, run: Run) -> Results<T> {
        let mut to = self.blank();
        self.run_into(&mut to, &mut Workspace::new(), run).unwrap();
        to
    }

    pub(crate) fn run_into(
        &self,
        to: &mut Results<T>,
        workspace: &mut Workspace<T>,
        run: Run,
    ) -> Result<(), Error> {
        let saved = StatsMut { m: &mut to.m, c: &mut to.c, rstd: &mut to.rstd };
        let y = RowsMut::new(&mut to.y, self.n)?;
        forward(self.norm, Rows::new(&self.x, self.n)?, self.params(), y, Some(saved), run)?;
        let gradients = Gradients {
            dx: Some(RowsMut::new(&mut to.dx, self.n)?),
            params: Some(ParamGradients {
                dweight: Some(&mut to.dweight),
                dbias: Some(&mut to.dbias),
                accumulate: false,
                first_row: self.first_row,
                workspace,
            }),
        };
        let saved = StatsRef { m: &to.m, c: &to.c, rstd: &to.rstd };
        let (x, dy) = (Rows::new(&self.x, self.n)?, Rows::new(&self.dy, self.n)?);
        backward(self.norm, [x, dy], self.params(), Some(saved), gradients, run)
    }
}

/// What outputs hold before a call.
pub(crate) const SENTINEL: f64 = -12345.5;

impl<T: Number> Results<T> {
    /// The first difference in bits.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let parts = [
            ("y", &self.y, &other.y),
            ("m", &self.m, &other.m),
            ("c", &self.c, &other.c),
            ("rstd", &self.rstd, &other.rstd),
            ("dx", &self.dx, &other.dx),
            ("dweight", &self.dweight, &other.dweight),
            ("dbias", &self.dbias, &other.dbias),
        ];
        parts.iter().find_map(|(what, left, right)| difference(what, left, right))
    }

    /// Of what belongs to rows, not to the parameters.
    pub(crate) fn difference_of_rows(&self, other: &Self) -> Option<String> {
        let of = |of: &Self| Self { dweight: vec![], dbias: vec![], ..of.clone() };
        of(self).difference(&of(other))
    }
}

#[track_caller]
pub(crate) fn assert_same<T: Number>(left: &Results<T>, right: &Results<T>, context: impl Fn() -> String) {
    if let Some(difference) = left.difference(right) {
        panic!("{}: {difference}", context());
    }
}

pub(crate) fn forward<T: Number>(
    norm: Norm,
    x: Rows<'_, T>,
    params: Params<'_, T>,
    y: RowsMut<'_, T>,
    saved: Option<StatsMut<'_, T>>,
    run: Run,
) -> Result<(), Error> {
    match norm {
        Norm::Layer => layernorm::layer_norm(x, params, y, saved, run),
        Norm::Rms => layernorm::rms_norm(x, params, y, saved.map(|saved| saved.rstd), run),
    }
}

pub(crate) fn forward_in_place<T: Number>(
    norm: Norm,
    x: RowsMut<'_, T>,
    params: Params<'_, T>,
    saved: Option<StatsMut<'_, T>>,
    run: Run,
) -> Result<(), Error> {
    match norm {
        Norm::Layer => layernorm::layer_norm_in_place(x, params, saved, run),
        Norm::Rms => layernorm::rms_norm_in_place(x, params, saved.map(|saved| saved.rstd), run),
    }
}

pub(crate) fn backward<T: Number>(
    norm: Norm,
    [x, dy]: [Rows<'_, T>; 2],
    params: Params<'_, T>,
    saved: Option<StatsRef<'_, T>>,
    gradients: Gradients<'_, T>,
    run: Run,
) -> Result<(), Error> {
    match norm {
        Norm::Layer => layernorm::layer_norm_backward(x, dy, params, saved, gradients, run),
        Norm::Rms => {
            layernorm::rms_norm_backward(x, dy, params, saved.map(|saved| saved.rstd), gradients, run)
        }
    }
}

pub(crate) fn backward_in_place<T: Number>(
    norm: Norm,
    x: Rows<'_, T>,
    dy: RowsMut<'_, T>,
    params: Params<'_, T>,
    (saved, of_params): (Option<StatsRef<'_, T>>, Option<ParamGradients<'_, T>>),
    run: Run,
) -> Result<(), Error> {
    match norm {
        Norm::Layer => layernorm::layer_norm_backward_in_place(x, dy, params, saved, of_params, run),
        Norm::Rms => {
            let rstd = saved.map(|saved| saved.rstd);
            layernorm::rms_norm_backward_in_place(x, dy, params, rstd, of_params, run)
        }
    }
}
