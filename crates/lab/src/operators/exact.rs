//! The oracle of the f64 kernels: the same formulas in double-double arithmetic, about 2^-100, at any exponent.
//!
//! Of `twofloat`, only sums, products and quotients by an f64 are used: those follow Joldes, Muller and Popescu (2017).
//! Its quotient of two double-doubles leaves out that paper's fma, which leaves it with the accuracy of an f64.

use super::oracle::{Divisor, Sets, Truth};
use twofloat::TwoFloat;

/// The numbers, exactly.
pub(super) fn wide(values: &[f64]) -> Vec<TwoFloat> {
    values.iter().map(|&value| value.into()).collect()
}

/// A set of numbers, its deviations scaled by 2^-exponent, so that no square overflows or vanishes.
struct Row<'a> {
    /// Which numbers take part.
    valid: &'a [bool],
    exponent: i32,
    mean: TwoFloat,
    rstd: TwoFloat,
    x_hat: Vec<TwoFloat>,
    /// What sums are divided by: how many numbers there are, or 1 for a length.
    count: f64,
    /// How much what the set is divided by depends on it: 1 unless there is an eps beside it, or instead of it.
    moves: TwoFloat,
}

/// Both passes over all sets.
pub(super) fn truth(of: &Sets<'_>) -> Truth {
    let zeros = |len: usize| vec![TwoFloat::from(0.0); len];
    let units = |values: Option<&[f64]>| if of.dy.is_some() { values.map_or(0, <[f64]>::len) } else { 0 };
    let (numbers, with_dy) = (of.x.len(), if of.dy.is_some() { of.x.len() } else { 0 });
    let mut truth = Truth {
        y: zeros(numbers),
        x_hat: vec![0.0; numbers],
        dx: zeros(with_dy),
        dweight: zeros(units(of.weight)),
        dbias: zeros(units(of.bias)),
        ..Truth::default()
    };
    let own = |len: usize, unit: usize| if len == 1 { 0 } else { unit };
    let weight = |unit: usize| {
        let weight = of.weight.map_or(1.0, |weight| weight[own(weight.len(), unit)]);
        TwoFloat::new_add(of.offset, weight)
    };
    for set in 0..of.sets {
        let places: Vec<(usize, usize)> = (0..of.n).map(|j| (of.at)(set, j)).collect();
        let x: Vec<f64> = places.iter().map(|&(at, _)| of.x[at]).collect();
        let valid: Vec<bool> = places.iter().map(|&(at, _)| of.is_valid(at)).collect();
        let row = Row::new(&x, &valid, of);
        for (&(at, unit), x_hat) in places.iter().zip(&row.x_hat) {
            truth.y[at] = x_hat * weight(unit) + of.bias.map_or(0.0, |bias| bias[own(bias.len(), unit)]);
            truth.x_hat[at] = x_hat.hi();
        }
        if let Some(dy) = of.dy {
            let u: Vec<TwoFloat> = places.iter().map(|&(at, unit)| weight(unit) * dy[at]).collect();
            for (&(at, _), dx) in places.iter().zip(row.input_gradient(&u, of)) {
                truth.dx[at] = of.upstream.map_or(dx, |upstream| dx + upstream[at]);
            }
            for (&(at, unit), x_hat) in places.iter().zip(&row.x_hat) {
                let terms = [x_hat * dy[at], dy[at].into()];
                for (sums, term) in [&mut truth.dweight, &mut truth.dbias].into_iter().zip(terms) {
                    let units = sums.len();
                    if units > 0 {
                        sums[own(units, unit)] += term;
                    }
                }
            }
        }
        truth.mean.extend(of.centred.then_some(row.mean));
        truth.rstd.push(scale(row.rstd, -row.exponent));
    }
    truth
}

impl<'a> Row<'a> {
    fn new(x: &[f64], valid: &'a [bool], of: &Sets<'_>) -> Self {
        let Sets { eps, centred, divisor, .. } = *of;
        let largest =
            |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, |max: f64, value| max.max(value.abs()));
        let count = valid.iter().filter(|valid| **valid).count() as f64;
        let zero = TwoFloat::from(0.0);
        // Nothing to divide by: then all become 0.
        let nothing = |mean| {
            let x_hat = vec![zero; x.len()];
            Self { valid, exponent: 0, mean, rstd: zero, x_hat, count: f64::max(count, 1.0), moves: zero }
        };
        if count == 0.0 {
            return nothing(zero);
        }
        let taking_part = |(value, valid): (f64, &bool)| valid.then_some(value);
        let most = largest(&mut x.iter().copied().zip(valid).filter_map(taking_part));
        let of_x = exponent(if most > 0.0 { most } else { largest(&mut x.iter().copied()) });
        let scaled: Vec<TwoFloat> = x.iter().map(|&x| libm::scalbn(x, -of_x).into()).collect();
        let only_valid = |(value, valid): (TwoFloat, &bool)| valid.then_some(value);
        let mean = if centred {
            sum(scaled.iter().copied().zip(valid).filter_map(only_valid)) / count
        } else {
            zero
        };
        let deviations: Vec<TwoFloat> = scaled.iter().map(|x| x - mean).collect();
        // Whichever counts more, the deviations or eps, becomes about 1.
        let furthest = largest(&mut deviations.iter().map(|d| d.hi()).zip(valid).filter_map(taking_part));
        if furthest == 0.0 && eps == 0.0 {
            return nothing(scale(mean, of_x));
        }
        let spread = exponent(furthest) + of_x;
        let of_eps = match divisor {
            _ if eps == 0.0 => i32::MIN,
            Divisor::Root => exponent(eps).div_euclid(2),
            Divisor::Length | Divisor::RootAndMore | Divisor::Magnitudes => exponent(eps),
        };
        let exponent = spread.max(of_eps);
        let deviations: Vec<TwoFloat> = deviations.into_iter().map(|d| scale(d, of_x - exponent)).collect();
        let squares = sum(deviations.iter().map(|d| d * d).zip(valid).filter_map(only_valid));
        let count = if divisor.is_length() { 1.0 } else { count };
        let one = TwoFloat::from(1.0);
        let (rstd, moves) = match divisor {
            Divisor::Root => (reciprocal_root(squares / count + libm::scalbn(eps, -2 * exponent)), one),
            Divisor::RootAndMore => {
                let r = reciprocal_root(squares / count);
                let divisor = squares / count * r + libm::scalbn(eps, -exponent);
                (reciprocal(divisor), divisor * r)
            }
            Divisor::Magnitudes => {
                let magnitudes = deviations.iter().map(|d| if d.hi() < 0.0 { -*d } else { *d });
                (reciprocal(sum(magnitudes)), one)
            }
            Divisor::Length => {
                let eps = libm::scalbn(eps, -exponent);
                let above = (squares - TwoFloat::new_mul(eps, eps)).hi() > 0.0;
                if above || eps == 0.0 {
                    (reciprocal_root(squares), one)
                } else {
                    (one / eps, TwoFloat::from(0.0))
                }
            }
        };
        let x_hat = deviations.iter().map(|d| d * rstd).collect();
        Self { valid, exponent, mean: scale(mean, of_x), rstd, x_hat, count, moves }
    }

    fn input_gradient(&self, u: &[TwoFloat], of: &Sets<'_>) -> Vec<TwoFloat> {
        let along_ones = if of.centred { sum(u.iter().copied()) / self.count } else { 0.0.into() };
        let along_x_hat =
            sum(u.iter().zip(&self.x_hat).map(|(u, x_hat)| u * x_hat)) / self.count * self.moves;
        let dx = |((u, x_hat), valid): ((&TwoFloat, &TwoFloat), &bool)| {
            // How what the set is divided by grows with the number: not at all where it takes no part.
            let slope = match of.divisor {
                Divisor::Magnitudes if x_hat.hi() == 0.0 => TwoFloat::from(0.0),
                Divisor::Magnitudes => x_hat.hi().signum().into(),
                _ => *x_hat,
            };
            if *valid { (u - along_ones - slope * along_x_hat) * self.rstd } else { *u * self.rstd }
        };
        u.iter().zip(&self.x_hat).zip(self.valid).map(dx).map(|dx| scale(dx, -self.exponent)).collect()
    }
}

fn sum(values: impl Iterator<Item = TwoFloat>) -> TwoFloat {
    values.fold(TwoFloat::from(0.0), |sum, value| sum + value)
}

/// 1 / sqrt(v), or 0 for 0: a step of Newton from the f64 result.
pub(super) fn reciprocal_root(v: TwoFloat) -> TwoFloat {
    if v.hi() == 0.0 {
        return 0.0.into();
    }
    let r = 1.0 / v.hi().sqrt();
    let lacks = 1.0 - TwoFloat::new_mul(r, r) * v;
    r + lacks * (r / 2.0)
}

/// 1 / v, or 0 for 0: a step of Newton from the f64 result.
fn reciprocal(v: TwoFloat) -> TwoFloat {
    if v.hi() == 0.0 {
        return 0.0.into();
    }
    let r = 1.0 / v.hi();
    r + (1.0 - v * r) * r
}

fn exponent(value: f64) -> i32 {
    // Zero lies below all others, and twice that is still a number.
    if value == 0.0 || !value.is_finite() { -100_000 } else { libm::ilogb(value) }
}

fn scale(value: TwoFloat, exponent: i32) -> TwoFloat {
    let part = |value: f64| libm::scalbn(value, exponent);
    let (hi, lo) = (part(value.hi()), part(value.lo()));
    // Where the number leaves the range of f64, what is left of it is one number.
    if hi.is_finite() { TwoFloat::new_add(hi, lo) } else { hi.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reciprocal_root_is_a_double_double() {
        for v in [2.0, 3.0, 1.5e-30, 7e200, 1.0 + 2f64.powi(-52)] {
            let v = TwoFloat::from(v) + v * 1e-20;
            let r = reciprocal_root(v);
            let off = r * r * v - 1.0;
            assert!(off.hi().abs() < 2f64.powi(-98), "{v:?}: {off:?}");
        }
        assert_eq!(reciprocal_root(0.0.into()), 0.0);
    }

    fn rows<'a>(x: &'a [f64], n: usize, eps: f64) -> Sets<'a> {
        Sets {
            sets: x.len() / n,
            n,
            at: match n {
                2 => &|set, j| (2 * set + j, j),
                _ => &|set, j| (3 * set + j, j),
            },
            centred: true,
            divisor: Divisor::Root,
            eps,
            valid: None,
            rounds: None,
            x,
            weight: None,
            offset: 0.0,
            bias: None,
            dy: None,
            upstream: None,
        }
    }

    /// (x - 1) / (x + 1) has a closed form: two numbers become -1 and 1 at eps 0, wherever they lie.
    #[test]
    fn two_numbers_become_minus_one_and_one_at_any_exponent() {
        for x in [[0.0, 5e-324], [1e-310, 3e-310], [1e300, 1.7e308], [1.0, 1.0 + 2f64.powi(-52)]] {
            let truth = truth(&rows(&x, 2, 0.0));
            for (y, exact) in truth.y.iter().zip([-1.0, 1.0]) {
                assert!((*y - exact).hi().abs() < 2f64.powi(-95), "{x:?}: {y:?}");
            }
        }
    }

    #[test]
    fn eps_counts_where_nothing_else_does() {
        for x in [[1.7e308; 2], [0.0; 2], [1e-320; 2]] {
            let truth = truth(&rows(&x, 2, 1e-12));
            assert!((truth.rstd[0] / 1e6 - 1.0).hi().abs() < 1e-15, "{x:?}: {:?}", truth.rstd);
            assert_eq!(truth.mean[0], x[0]);
        }
    }

    /// The reference in f64 and this one are written apart; on plain rows they agree to f64's accuracy.
    #[test]
    fn agrees_with_the_reference() {
        use layernorm::reference::{Affine, layer_norm, layer_norm_backward};
        let (x, dy) = ([1.0, -2.0, 4.5, 0.25, 3.0, 3.5], [0.5, 1.0, -1.0, 2.0, 0.0, 0.125]);
        let (weight, bias) = ([1.0, 2.0, 0.5], [0.0, -1.0, 1.0]);
        let truth =
            truth(&Sets { weight: Some(&weight), bias: Some(&bias), dy: Some(&dy), ..rows(&x, 3, 1e-5) });
        let affine = Affine::new(&weight, &bias);
        let forward = layer_norm(&x, 3, affine, 1e-5);
        let backward = layer_norm_backward(&dy, &x, 3, affine, 1e-5);
        let pairs = [
            (truth.y, forward.y),
            (truth.rstd, forward.rstd),
            (truth.dx, backward.dx),
            (truth.dweight, backward.dweight),
            (truth.dbias, backward.dbias),
        ];
        for (exact, reference) in pairs {
            assert_eq!(exact.len(), reference.len());
            for (exact, reference) in exact.iter().zip(reference) {
                assert!((*exact - reference).hi().abs() < 1e-14, "{exact:?} {reference}");
            }
        }
    }
}
