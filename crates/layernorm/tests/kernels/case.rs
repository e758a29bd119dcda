//! A call of the kernels as a value: what goes in, and everything that comes out, forward and backward.

use crate::number::{Stored, Value, difference};
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

    /// Numbers of the elements' type, or of the one that they accumulate in, which holds them in either case.
    fn numbers<E: Stored>(
        self,
        n: usize,
        wide: bool,
        mut number: impl FnMut() -> f64,
    ) -> Option<Vec<E::Acc>> {
        let len = match self {
            Self::Absent => return None,
            Self::Shared => 1,
            Self::PerUnit => n,
        };
        let of = |value: f64| if wide { E::Acc::of(value) } else { E::of(value).acc() };
        Some((0..len).map(|_| of(number())).collect())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Case<E: Stored> {
    pub(crate) norm: Norm,
    /// Features in a row, at least one.
    pub(crate) n: usize,
    pub(crate) x: Vec<E>,
    pub(crate) dy: Vec<E>,
    pub(crate) weight: Option<Vec<E::Acc>>,
    pub(crate) bias: Option<Vec<E::Acc>>,
    /// Are weight and bias given in the type that elements accumulate in? Else they are elements.
    pub(crate) wide: bool,
    pub(crate) eps: f64,
    pub(crate) first_row: usize,
}

/// Weight, bias and eps, in the type that they are given in.
#[derive(Debug, Clone)]
pub(crate) enum Given<E: Stored> {
    Own([Option<Vec<E>>; 2], f64),
    Wide([Option<Vec<E::Acc>>; 2], f64),
}

impl<E: Stored> Default for Given<E> {
    fn default() -> Self {
        Self::Own([None, None], Params::<E>::default().eps)
    }
}

/// A call with parameters of either type.
macro_rules! call_with {
    ($given:expr, |$params:ident| $call:expr) => {
        match &$given {
            Given::Own([weight, bias], eps) => {
                let $params = Params { weight: weight.as_deref(), bias: bias.as_deref(), eps: *eps };
                $call
            }
            Given::Wide([weight, bias], eps) => {
                let $params = Params { weight: weight.as_deref(), bias: bias.as_deref(), eps: *eps };
                $call
            }
        }
    };
}
pub(crate) use call_with;

/// All that a forward and a backward pass give. RMS norm has no m and no c.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Results<E: Stored> {
    pub(crate) y: Vec<E>,
    pub(crate) m: Vec<E::Acc>,
    pub(crate) c: Vec<E::Acc>,
    pub(crate) rstd: Vec<E::Acc>,
    pub(crate) dx: Vec<E>,
    pub(crate) dweight: Vec<E::Acc>,
    pub(crate) dbias: Vec<E::Acc>,
}

pub(crate) const EPSILONS: [f64; 8] = [0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-3, 1.0, 1e10];

impl<E: Stored> Case<E> {
    /// Rows, with gradients and parameters drawn for them.
    pub(crate) fn new(norm: Norm, x: Vec<E>, n: usize, random: &mut Random) -> Self {
        let dy = (0..x.len()).map(|_| E::of(random.normal())).collect();
        let many = [random.pick(&Many::ALL), random.pick(&Many::ALL)];
        let eps = random.pick(&EPSILONS);
        // One more draw where there is a choice: the cases of f32 and f64 are those that they were.
        let wide = E::HALF_DIGITS.is_some() && random.bits() & 1 == 0;
        Self { norm, n, x, dy, weight: None, bias: None, wide, eps, first_row: 0 }.with_params(many, random)
    }

    pub(crate) fn with_params(self, [weight, bias]: [Many; 2], random: &mut Random) -> Self {
        let weight = weight.numbers::<E>(self.n, self.wide, || random.sign() * (0.5 + random.unit()));
        let bias = bias.numbers::<E>(self.n, self.wide, || random.normal());
        Self { weight, bias, ..self }
    }

    /// Rows of all shapes, some at the ends of the range, few with numbers that are none.
    pub(crate) fn random(norm: Norm, rows: usize, n: usize, random: &mut Random) -> Self {
        let scales = rows::scales::<E>();
        let mut x = Vec::with_capacity(rows * n);
        for _ in 0..rows {
            let row = random.pick(&Shape::ALL).row(random, n);
            x.extend(match random.below(16) {
                0 => rows::scaled(&row, random.pick(&scales)),
                1 => vec![E::of(random.normal() * 10.0); n],
                2 | 3 => rows::rounded(&row),
                kind => {
                    let mean = random.pick(&[0.0, 0.0, 1.0, 1e2, 1e5]);
                    let mut row = rows::rounded(&rows::with_mean(random, row, mean));
                    if kind == 4 && random.below(4) == 0 {
                        let special =
                            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, E::GREATEST.min(3e38)];
                        row[random.below(n)] = E::of(random.pick(&special));
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

    pub(crate) fn params(&self) -> Given<E> {
        let all = [&self.weight, &self.bias];
        if self.wide {
            return Given::Wide(all.map(Clone::clone), self.eps);
        }
        let elements = |numbers: &Vec<E::Acc>| numbers.iter().map(|number| E::round(*number)).collect();
        Given::Own(all.map(|numbers| numbers.as_ref().map(elements)), self.eps)
    }

    /// Rows of the case as one of its own.
    pub(crate) fn part(&self, rows: std::ops::Range<usize>) -> Self {
        let of = |numbers: &[E]| numbers[rows.start * self.n..rows.end * self.n].to_vec();
        Self { x: of(&self.x), dy: of(&self.dy), first_row: self.first_row + rows.start, ..self.clone() }
    }

    /// Room for results, full of a number that is none of them.
    pub(crate) fn blank(&self) -> Results<E> {
        let fill = |len: usize| vec![E::Acc::of(SENTINEL); len];
        let gradient = |of: &Option<Vec<E::Acc>>| fill(of.as_ref().map_or(self.n, Vec::len));
        let (rows, rows_like_x) = (self.rows(), vec![E::of(SENTINEL); self.x.len()]);
        let centre = if self.norm == Norm::Layer { rows } else { 0 };
        Results {
            y: rows_like_x.clone(),
            m: fill(centre),
            c: fill(centre),
            rstd: fill(rows),
            dx: rows_like_x,
            dweight: gradient(&self.weight),
            dbias: gradient(&self.bias),
        }
    }

    /// Forward and backward of contiguous rows, with saved statistics.
    pub(crate) fn run(&self, run: Run) -> Results<E> {
        let mut to = self.blank();
        self.run_into(&mut to, &mut Workspace::new(), run).unwrap();
        to
    }

    pub(crate) fn run_into(
        &self,
        to: &mut Results<E>,
        workspace: &mut Workspace<E::Acc>,
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

impl<E: Stored> Results<E> {
    /// The first difference in bits.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let rows = [("y", &self.y, &other.y), ("dx", &self.dx, &other.dx)];
        let others = [
            ("m", &self.m, &other.m),
            ("c", &self.c, &other.c),
            ("rstd", &self.rstd, &other.rstd),
            ("dweight", &self.dweight, &other.dweight),
            ("dbias", &self.dbias, &other.dbias),
        ];
        let of_others = others.iter().find_map(|(what, left, right)| difference(what, left, right));
        of_others.or_else(|| rows.iter().find_map(|(what, left, right)| difference(what, left, right)))
    }

    /// These rows, then those of `other`. Gradients of parameters stay.
    pub(crate) fn then(mut self, other: Self) -> Self {
        self.y.extend(other.y);
        self.dx.extend(other.dx);
        self.m.extend(other.m);
        self.c.extend(other.c);
        self.rstd.extend(other.rstd);
        self
    }

    /// Of what belongs to rows, not to the parameters.
    pub(crate) fn difference_of_rows(&self, other: &Self) -> Option<String> {
        let of = |of: &Self| Self { dweight: vec![], dbias: vec![], ..of.clone() };
        of(self).difference(&of(other))
    }
}

#[track_caller]
pub(crate) fn assert_same<E: Stored>(left: &Results<E>, right: &Results<E>, context: impl Fn() -> String) {
    if let Some(difference) = left.difference(right) {
        panic!("{}: {difference}", context());
    }
}

pub(crate) fn forward<E: Stored>(
    norm: Norm,
    x: Rows<'_, E>,
    given: Given<E>,
    y: RowsMut<'_, E>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    call_with!(given, |params| match norm {
        Norm::Layer => layernorm::layer_norm(x, params, y, saved, run),
        Norm::Rms => layernorm::rms_norm(x, params, y, saved.map(|saved| saved.rstd), run),
    })
}

pub(crate) fn forward_in_place<E: Stored>(
    norm: Norm,
    x: RowsMut<'_, E>,
    given: Given<E>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    call_with!(given, |params| match norm {
        Norm::Layer => layernorm::layer_norm_in_place(x, params, saved, run),
        Norm::Rms => layernorm::rms_norm_in_place(x, params, saved.map(|saved| saved.rstd), run),
    })
}

pub(crate) fn backward<E: Stored>(
    norm: Norm,
    [x, dy]: [Rows<'_, E>; 2],
    given: Given<E>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: Gradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    call_with!(given, |params| match norm {
        Norm::Layer => layernorm::layer_norm_backward(x, dy, params, saved, gradients, run),
        Norm::Rms => {
            layernorm::rms_norm_backward(x, dy, params, saved.map(|saved| saved.rstd), gradients, run)
        }
    })
}

/// What a backward pass in place reads of the forward pass, and what it writes besides.
type BesideDx<'a, T> = (Option<StatsRef<'a, T>>, Option<ParamGradients<'a, T>>);

pub(crate) fn backward_in_place<E: Stored>(
    norm: Norm,
    x: Rows<'_, E>,
    dy: RowsMut<'_, E>,
    given: Given<E>,
    (saved, of_params): BesideDx<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    call_with!(given, |params| match norm {
        Norm::Layer => layernorm::layer_norm_backward_in_place(x, dy, params, saved, of_params, run),
        Norm::Rms => {
            let rstd = saved.map(|saved| saved.rstd);
            layernorm::rms_norm_backward_in_place(x, dy, params, rstd, of_params, run)
        }
    })
}
