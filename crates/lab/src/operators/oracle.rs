//! The right answers, and how far from them an output may lie.

use super::exact::{self, wide};
use super::types::{Acc, Number, Types};
use super::{Problem, Slot, Tensors};
use twofloat::TwoFloat;

/// The inputs of a call, exactly, whatever their types are.
#[derive(Debug)]
pub struct Given {
    values: Vec<Option<Vec<f64>>>,
    /// Sums are f64, so that f64 is not enough to judge them.
    pub double: bool,
    /// Epsilon, as the kernels round it: once, to the type of sums.
    pub eps: f64,
    /// Rounds a number to the type of sums.
    pub round_sum: fn(f64) -> f64,
    /// Rounds a number to the type of sums, then to that of the residual.
    pub round: fn(f64) -> f64,
    /// Half the distance between the elements around a number, where they are narrower than sums.
    pub element_half_ulp: Option<fn(f64) -> f64>,
    /// Is the type of the parameters wider than that of the elements?
    pub wide_parameters: bool,
    /// Half the distance from 1 to the next number of the residual's type, in units of that of sums.
    residual_unit: f64,
    /// The smallest number of the residual's type.
    residual_tiny: f64,
    /// The largest number of the residual's type.
    residual_largest: f64,
    /// The largest number of the type of sums.
    pub largest: f64,
    /// That half of the type of sums.
    pub unit: f64,
}

impl Given {
    /// What a call is given.
    pub fn new<T: Types>(problem: &Problem, tensors: &Tensors<T>) -> Self {
        let values = Slot::ALL.iter().map(|&slot| tensors.get(slot).map(super::View::widened)).collect();
        Self {
            values,
            double: <Acc<T> as Number>::UNIT < 1e-10,
            eps: <Acc<T>>::narrow(problem.eps()).widen(),
            round_sum: |value| <Acc<T>>::narrow(value).widen(),
            round: |value| T::R::narrow(<Acc<T>>::narrow(value).widen()).widen(),
            element_half_ulp: (T::E::UNIT > <Acc<T> as Number>::UNIT).then_some(T::E::half_ulp),
            wide_parameters: T::P::UNIT < T::E::UNIT,
            residual_unit: T::R::UNIT / <Acc<T> as Number>::UNIT,
            residual_tiny: T::R::TINY,
            residual_largest: T::R::LARGEST,
            largest: <Acc<T> as Number>::LARGEST,
            unit: <Acc<T> as Number>::UNIT,
        }
    }

    /// What the gradient of a residual, as it is stored, may lack: in u, and infinite where it may be out of range.
    pub fn lacks(&self, of: &Expected) -> Vec<f64> {
        let numbers = of.values.iter().zip(&of.scales);
        let lacks = numbers.map(|(value, scale)| {
            let size = value.hi().abs();
            let rounded = self.residual_unit * size + self.residual_tiny / 2.0 / self.unit;
            let lacks = scale * of.bound + rounded;
            if size + lacks * self.unit < self.residual_largest { lacks } else { f64::INFINITY }
        });
        lacks.collect()
    }

    /// A tensor.
    pub fn get(&self, slot: Slot) -> Option<&[f64]> {
        self.values[slot as usize].as_deref()
    }

    /// A tensor that is there, or nothing.
    pub fn all(&self, slot: Slot) -> &[f64] {
        self.get(slot).unwrap_or_default()
    }
}

/// What an output must be.
#[derive(Debug)]
pub struct Expected {
    /// Which output.
    pub slot: Slot,
    /// The exact values.
    pub values: Vec<TwoFloat>,
    /// What an error of 1u amounts to at each value, divided by u: that of the type of sums. Infinite where nothing can be
    /// said, because what the value is made from, as it is stored, is out of its type's range.
    pub scales: Vec<f64>,
    /// How many such units are allowed.
    pub bound: f64,
    /// Whether rounding the result itself, u |value|, is allowed on top. Rounding to a half always is.
    pub rounding: bool,
}

/// What a row is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Divisor {
    /// sqrt(mean square + eps).
    Root,
    /// sqrt(mean square) + eps.
    RootAndMore,
    /// max(length, eps).
    Length,
    /// The sum of magnitudes.
    Magnitudes,
}

impl Divisor {
    /// A length has no mean to make its terms smaller.
    pub fn is_length(self) -> bool {
        matches!(self, Self::Length | Self::Magnitudes)
    }
}

/// Numbers that are normalised in sets, and their parameters.
pub struct Sets<'a> {
    /// How many sets.
    pub sets: usize,
    /// How many numbers each has.
    pub n: usize,
    /// Where number `j` of set `i` lies, and which of the parameters are its own.
    pub at: &'a dyn Fn(usize, usize) -> (usize, usize),
    /// Is the mean taken away?
    pub centred: bool,
    /// What deviations are divided by.
    pub divisor: Divisor,
    /// Epsilon.
    pub eps: f64,
    /// Which numbers, by their place, take part in the statistics; all, where absent.
    pub valid: Option<&'a dyn Fn(usize) -> bool>,
    /// What x_hat may lack before it meets the weight, where it is rounded in between.
    pub rounds: Option<fn(f64) -> f64>,
    /// The input.
    pub x: &'a [f64],
    /// What x_hat is multiplied by, less `offset`; one number for all, or by parameter.
    pub weight: Option<&'a [f64]>,
    /// What the weight lacks.
    pub offset: f64,
    /// What is added.
    pub bias: Option<&'a [f64]>,
    /// The gradient of the output.
    pub dy: Option<&'a [f64]>,
    /// A gradient of the input that comes another way.
    pub upstream: Option<&'a [f64]>,
}

/// The exact results of both passes.
#[derive(Debug, Default)]
pub struct Truth {
    /// As x.
    pub y: Vec<TwoFloat>,
    /// As x.
    pub x_hat: Vec<f64>,
    /// One a set; empty where the statistics are not centred.
    pub mean: Vec<TwoFloat>,
    /// One a set.
    pub rstd: Vec<TwoFloat>,
    /// As x, with dy.
    pub dx: Vec<TwoFloat>,
    /// As the weight, with dy.
    pub dweight: Vec<TwoFloat>,
    /// As the bias, with dy.
    pub dbias: Vec<TwoFloat>,
}

/// What a reference in f64 says: y, mean, rstd, dx, dweight, dbias, and x_hat, in the orders of [`Truth`].
#[derive(Debug, Default)]
pub struct Reference {
    /// As x.
    pub y: Vec<f64>,
    /// One a set.
    pub mean: Vec<f64>,
    /// One a set.
    pub rstd: Vec<f64>,
    /// As x.
    pub x_hat: Vec<f64>,
    /// As x, with dy.
    pub dx: Vec<f64>,
    /// As the weight, with dy.
    pub dweight: Vec<f64>,
    /// As the bias, with dy.
    pub dbias: Vec<f64>,
}

impl From<Reference> for Truth {
    fn from(of: Reference) -> Self {
        Self {
            y: wide(&of.y),
            x_hat: of.x_hat,
            mean: wide(&of.mean),
            rstd: wide(&of.rstd),
            dx: wide(&of.dx),
            dweight: wide(&of.dweight),
            dbias: wide(&of.dbias),
        }
    }
}

/// Which output is which; a gradient that nobody asks for has none.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// The output.
    pub y: Slot,
    /// What a set is divided by, or one by that.
    pub rstd: Slot,
    /// The gradient of the input.
    pub dx: Slot,
    /// The gradient of the weight.
    pub dweight: Slot,
    /// The gradient of the bias.
    pub dbias: Slot,
}

impl Names {
    /// As most operators call them.
    pub const USUAL: Self =
        Self { y: Slot::Y, rstd: Slot::Rstd, dx: Slot::Dx, dweight: Slot::Dweight, dbias: Slot::Dbias };
}

/// residual + factor x, where factor is 1 where it is absent: rounded as the kernels do, once to the type of sums and
/// then to that of the residual; and what that must be.
pub fn sum(given: &Given, factor: &dyn Fn(usize) -> f64) -> (Vec<f64>, Expected) {
    let (x, residual) = (given.all(Slot::X), given.all(Slot::Residual));
    let bias = given.get(Slot::BranchBias);
    let branch = |i: usize| {
        let bias = bias.map_or(-0.0, |bias| bias[if bias.len() == 1 { 0 } else { i % bias.len() }]);
        // Rounded before it meets the factor: in f64 the sum of two numbers of sums' type rounds as in that type.
        if bias == 0.0 { x[i] } else { (given.round_sum)(x[i] + bias) }
    };
    let exact = |i: usize| TwoFloat::new_mul(factor(i), branch(i)) + residual[i];
    let stored = |i: usize| {
        if given.double { factor(i).mul_add(branch(i), residual[i]) } else { (given.round)(odd(exact(i))) }
    };
    let values: Vec<TwoFloat> = (0..x.len()).map(exact).collect();
    let scales = values
        .iter()
        .zip(residual)
        .map(|(sum, residual)| if bias.is_some() { sum.hi().abs() + residual.abs() } else { sum.hi().abs() });
    let expected =
        Expected { slot: Slot::ResidualOut, scales: scales.collect(), values, bound: 2.0, rounding: true };
    ((0..x.len()).map(stored).collect(), expected)
}

/// As an f64 from which rounding to a shorter type gives what rounding the double-double would: where anything is lost,
/// the last bit is set.
fn odd(value: TwoFloat) -> f64 {
    let (hi, lo) = (value.hi(), value.lo());
    if lo == 0.0 || !hi.is_finite() || hi.to_bits() & 1 == 1 {
        return hi;
    }
    f64::from_bits(if (lo > 0.0) == (hi > 0.0) { hi.to_bits() + 1 } else { hi.to_bits() - 1 })
}

impl Sets<'_> {
    /// The weight of parameter `unit`.
    pub fn weight(&self, unit: usize) -> f64 {
        self.offset + self.weight.map_or(1.0, |weight| weight[if weight.len() == 1 { 0 } else { unit }])
    }

    /// What the outputs must be: for f64 in double-double arithmetic, else by the reference.
    pub fn expected(
        &self,
        given: &Given,
        names: Names,
        reference: impl FnOnce() -> Reference,
    ) -> Vec<Expected> {
        let truth = if given.double { exact::truth(self) } else { reference().into() };
        self.bounds(truth, names, given)
    }

    /// The same, in double-double arithmetic for all types.
    pub fn exactly(&self, given: &Given, names: Names) -> Vec<Expected> {
        self.bounds(exact::truth(self), names, given)
    }

    /// Does the number at this place take part in the statistics?
    pub fn is_valid(&self, place: usize) -> bool {
        self.valid.is_none_or(|valid| valid(place))
    }

    /// The bounds: r = rstd, S = sum over rows of |dy| max(1, |x_hat|), all in u.
    ///
    /// ```text
    /// y        8 |weight| max(1, |x_hat|) + |y|     (with nothing subtracted: 8 |weight x_hat| + |y|)
    /// mean     8 std + |mean|
    /// rstd     8 r
    /// dx       16 r max|weight dy| max(1, |x_hat|)
    /// dweight  (16 + log2 rows) S
    /// dbias    (8 + log2 rows) sum |dy|
    /// ```
    ///
    /// Where a row is divided by its length, x_hat is at most 1, and dx may err by
    /// 16 r (max|weight dy| + |x_hat| sum|weight dy x_hat|). (Divided by the sum of magnitudes: with 1 for |x_hat| there.)
    /// Where not all numbers take part, those that don't may be far out: dx may err by
    /// 16 r (max|weight dy| max(1, |x_hat|) + (sum|weight dy| + |x_hat| sum|weight dy x_hat|) / count) then.
    /// An x_hat that is rounded on its way adds half an ulp of its own, times |weight|, to y. Nothing is known of an
    /// x_hat beyond the type of sums, as it may be where its number takes no part, and of what it goes into.
    fn bounds(&self, truth: Truth, names: Names, given: &Given) -> Vec<Expected> {
        let Self { sets, n, centred, divisor, .. } = *self;
        let Truth { y, x_hat, mean, rstd, dx, dweight, dbias } = truth;
        let spread = |x_hat: f64| if centred { x_hat.abs().max(1.0) } else { x_hat.abs() };
        let numbers = self.x.len();
        let (mut y_scales, mut dx_scales, mut mean_scales) = (vec![0.0; numbers], vec![0.0; numbers], vec![]);
        let mut sums = [vec![0.0; dweight.len()], vec![0.0; dbias.len()]];
        let upstream = |at: usize| self.upstream.map_or(0.0, |upstream| upstream[at].abs());
        for (set, r) in rstd.iter().enumerate().take(sets) {
            let places = || (0..n).map(|j| (self.at)(set, j));
            let largest = places().fold(0.0, |max: f64, (at, _)| max.max(x_hat[at].abs()));
            // Scaled, because squares vanish where eps is far above the variance.
            let squares =
                places().filter(|(at, _)| self.is_valid(*at)).map(|(at, _)| (x_hat[at] / largest).powi(2));
            let (count, squares) =
                squares.fold((0.0, 0.0), |(count, sum), square| (count + 1.0, sum + square));
            let mean_square = squares / f64::max(count, 1.0);
            let r = r.hi();
            mean_scales.push(if largest == 0.0 { 0.0 } else { largest * mean_square.sqrt() / r });
            // What takes part is of a size that sums can have.
            let known = |at: usize| self.valid.is_none() || x_hat[at].abs() <= given.largest;
            let beyond = !places().all(|(at, _)| known(at));
            for (at, parameter) in places() {
                let rounded =
                    self.rounds.map_or(0.0, |half_ulp| half_ulp(x_hat[at].abs()) / (8.0 * given.unit));
                let scale = self.weight(parameter).abs() * (spread(x_hat[at]) + rounded);
                y_scales[at] = if known(at) { scale } else { f64::INFINITY };
            }
            let Some(dy) = self.dy else { continue };
            let u = |(at, unit): (usize, usize)| (self.weight(unit) * dy[at]).abs();
            let largest = places().map(u).fold(0.0, f64::max);
            let along: f64 = places().map(|place| u(place) * x_hat[place.0].abs()).sum();
            let plain: f64 = if self.valid.is_some() { places().map(u).sum() } else { 0.0 };
            for (at, unit) in places() {
                let size = x_hat[at].abs();
                let scale = match divisor {
                    Divisor::Length => largest + size * along,
                    Divisor::Magnitudes => largest + along,
                    _ if self.valid.is_some() => {
                        largest * size.max(1.0) + (plain + size * along) / f64::max(count, 1.0)
                    }
                    Divisor::Root | Divisor::RootAndMore => largest * size.max(1.0),
                };
                let scale = r * scale + upstream(at) / 16.0;
                dx_scales[at] = if beyond { f64::INFINITY } else { scale };
                let by_x_hat = if beyond { f64::INFINITY } else { dy[at].abs() * size.max(1.0) };
                for (sums, term) in sums.iter_mut().zip([by_x_hat, dy[at].abs()]) {
                    let units = sums.len();
                    if units > 0 {
                        sums[if units == 1 { 0 } else { unit }] += term;
                    }
                }
            }
        }
        let one = |slot, values, scales, bound, rounding| Expected { slot, values, scales, bound, rounding };
        let rstd_scales = rstd.iter().map(|r| r.hi()).collect();
        let mut all =
            vec![one(names.y, y, y_scales, 8.0, true), one(names.rstd, rstd, rstd_scales, 8.0, false)];
        if centred {
            all.push(one(Slot::Mean, mean, mean_scales, 8.0, true));
        }
        if self.dy.is_some() {
            all.push(one(names.dx, dx, dx_scales, 16.0, false));
            let [of_weight, of_bias] = sums;
            let terms = |units: usize| (numbers as f64 / units.max(1) as f64).max(1.0).log2();
            all.push(one(names.dweight, dweight, of_weight, 16.0, false));
            all.push(one(names.dbias, dbias, of_bias, 8.0, false));
            for sums in all.iter_mut().rev().take(2) {
                sums.bound += terms(sums.values.len());
            }
        }
        all
    }
}

/// `lacks` times `factor`, and what else there is: where nothing is known, nothing is known of no matter how little of it.
pub fn times(lacks: f64, factor: f64, more: f64) -> f64 {
    if lacks.is_infinite() { lacks } else { lacks * factor.abs() + more }
}
