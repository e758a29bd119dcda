//! The oracle of the f64 kernels: the same formulas in double-double arithmetic, about 2^-100, at any exponent.
//!
//! Of `twofloat`, only sums, products and quotients by an f64 are used: those follow Joldes, Muller and Popescu (2017).
//! Its quotient of two double-doubles leaves out that paper's fma, which leaves it with the accuracy of an f64.

use super::by_row::{Gradients, Truth};
use super::{Problem, Tensors};
use twofloat::TwoFloat;

/// The numbers, exactly.
pub(super) fn wide(values: &[f64]) -> Vec<TwoFloat> {
    values.iter().map(|&value| value.into()).collect()
}

/// A row, its deviations scaled by 2^-exponent, so that no square overflows or vanishes.
struct Row {
    exponent: i32,
    mean: TwoFloat,
    rstd: TwoFloat,
    x_hat: Vec<TwoFloat>,
}

/// Both passes over all rows.
pub(super) fn rows(problem: &Problem, tensors: &Tensors<f64>, centred: bool) -> Truth {
    let n = problem.features().max(1);
    let parameter = |values: &Option<Vec<f64>>, absent: f64, j: usize| {
        values.as_ref().map_or(absent, |values| values[if values.len() == 1 { 0 } else { j }])
    };
    let zeros = |values: &Option<Vec<f64>>| vec![TwoFloat::from(0.0); values.as_ref().map_or(0, Vec::len)];
    let mut truth = Truth::default();
    let mut gradients =
        Gradients { dx: vec![], dweight: zeros(&tensors.weight), dbias: zeros(&tensors.bias) };
    let x = tensors.x.as_deref().unwrap_or_default();
    for (i, x) in x.chunks(n).enumerate() {
        let row = Row::new(x, problem.eps, centred);
        for (j, x_hat) in row.x_hat.iter().enumerate() {
            truth.y.push(*x_hat * parameter(&tensors.weight, 1.0, j) + parameter(&tensors.bias, 0.0, j));
            truth.x_hat.push(x_hat.hi());
        }
        if let Some(dy) = &tensors.dy {
            let dy = &dy[i * n..][..n];
            let u = dy
                .iter()
                .enumerate()
                .map(|(j, &dy)| TwoFloat::new_mul(parameter(&tensors.weight, 1.0, j), dy));
            gradients.dx.extend(row.input_gradient(&u.collect::<Vec<_>>(), centred));
            add(&mut gradients.dweight, row.x_hat.iter().zip(dy).map(|(x_hat, &dy)| *x_hat * dy));
            add(&mut gradients.dbias, dy.iter().map(|&dy| dy.into()));
        }
        truth.mean.extend(centred.then_some(row.mean));
        truth.rstd.push(scale(row.rstd, -row.exponent));
    }
    truth.gradients = tensors.dy.is_some().then_some(gradients);
    truth
}

impl Row {
    fn new(x: &[f64], eps: f64, centred: bool) -> Self {
        let largest =
            |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, |max: f64, value| max.max(value.abs()));
        let of_x = exponent(largest(&mut x.iter().copied()));
        let x: Vec<TwoFloat> = x.iter().map(|&x| libm::scalbn(x, -of_x).into()).collect();
        let mean = if centred { mean(x.iter().copied()) } else { 0.0.into() };
        let deviations: Vec<TwoFloat> = x.iter().map(|x| x - mean).collect();
        // Whichever counts more, the deviations or eps, becomes about 1.
        let spread = exponent(largest(&mut deviations.iter().map(|d| d.hi()))) + of_x;
        let exponent = spread.max(if eps > 0.0 { exponent(eps).div_euclid(2) } else { i32::MIN });
        let deviations: Vec<TwoFloat> = deviations.into_iter().map(|d| scale(d, of_x - exponent)).collect();
        let var = self::mean(deviations.iter().map(|d| d * d));
        let rstd = reciprocal_root(var + libm::scalbn(eps, -2 * exponent));
        let x_hat = deviations.iter().map(|d| d * rstd).collect();
        Self { exponent, mean: scale(mean, of_x), rstd, x_hat }
    }

    fn input_gradient(&self, u: &[TwoFloat], centred: bool) -> Vec<TwoFloat> {
        let along_ones = if centred { mean(u.iter().copied()) } else { 0.0.into() };
        let along_x_hat = mean(u.iter().zip(&self.x_hat).map(|(u, x_hat)| u * x_hat));
        let dx = |(u, x_hat): (&TwoFloat, &TwoFloat)| (u - along_ones - x_hat * along_x_hat) * self.rstd;
        u.iter().zip(&self.x_hat).map(dx).map(|dx| scale(dx, -self.exponent)).collect()
    }
}

fn add(sums: &mut [TwoFloat], terms: impl Iterator<Item = TwoFloat>) {
    let units = sums.len();
    if units > 0 {
        terms.enumerate().for_each(|(j, term)| sums[j % units] += term);
    }
}

fn mean(values: impl ExactSizeIterator<Item = TwoFloat>) -> TwoFloat {
    let n = values.len() as f64;
    values.fold(TwoFloat::from(0.0), |sum, value| sum + value) / n
}

/// 1 / sqrt(v), or 0 for 0: a step of Newton from the f64 result.
fn reciprocal_root(v: TwoFloat) -> TwoFloat {
    if v.hi() == 0.0 {
        return 0.0.into();
    }
    let r = 1.0 / v.hi().sqrt();
    let lacks = 1.0 - TwoFloat::new_mul(r, r) * v;
    r + lacks * (r / 2.0)
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

    /// (x - 1) / (x + 1) has a closed form: two numbers become -1 and 1 at eps 0, wherever they lie.
    #[test]
    fn two_numbers_become_minus_one_and_one_at_any_exponent() {
        for x in [[0.0, 5e-324], [1e-310, 3e-310], [1e300, 1.7e308], [1.0, 1.0 + 2f64.powi(-52)]] {
            let problem = Problem::matrix(1, 2, 0.0);
            let tensors = Tensors { x: Some(x.to_vec()), ..Tensors::default() };
            let truth = rows(&problem, &tensors, true);
            for (y, exact) in truth.y.iter().zip([-1.0, 1.0]) {
                assert!((*y - exact).hi().abs() < 2f64.powi(-95), "{x:?}: {y:?}");
            }
        }
    }

    #[test]
    fn eps_counts_where_nothing_else_does() {
        for x in [[1.7e308; 2], [0.0; 2], [1e-320; 2]] {
            let problem = Problem::matrix(1, 2, 1e-12);
            let truth = rows(&problem, &Tensors { x: Some(x.to_vec()), ..Tensors::default() }, true);
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
        let problem = Problem::matrix(2, 3, 1e-5);
        let tensors = Tensors {
            x: Some(x.to_vec()),
            dy: Some(dy.to_vec()),
            weight: Some(weight.to_vec()),
            bias: Some(bias.to_vec()),
            ..Tensors::default()
        };
        let truth = rows(&problem, &tensors, true);
        let gradients = truth.gradients.unwrap();
        let affine = Affine::new(&weight, &bias);
        let forward = layer_norm(&x, 3, affine, 1e-5);
        let backward = layer_norm_backward(&dy, &x, 3, affine, 1e-5);
        let pairs = [
            (truth.y, forward.y),
            (truth.rstd, forward.rstd),
            (gradients.dx, backward.dx),
            (gradients.dweight, backward.dweight),
            (gradients.dbias, backward.dbias),
        ];
        for (exact, reference) in pairs {
            assert_eq!(exact.len(), reference.len());
            for (exact, reference) in exact.iter().zip(reference) {
                assert!((*exact - reference).hi().abs() < 1e-14, "{exact:?} {reference}");
            }
        }
    }
}
