//! The oracle of a norm that SiLU follows.

use super::{Expected, Given, Slot};
use twofloat::TwoFloat;

/// How often its scale the error of a gradient may be that comes of what dy errs by: once by itself, once by its mean,
/// once along x_hat.
const THROUGH_A_NORM: f64 = 3.0;

/// silu(z), silu'(z), and what the error of silu'(z) is measured by: s (1 + |z| (1 - s)), s = 1 / (1 + exp(-z)).
fn silu(z: f64) -> [f64; 3] {
    let e = libm::exp(-z.abs());
    let (near_one, near_zero) = (1.0 / (1.0 + e), e / (1.0 + e));
    let (s, opposite) = if z < 0.0 { (near_zero, near_one) } else { (near_one, near_zero) };
    [z * s, s * (1.0 + z * opposite), s * (1.0 + z.abs() * opposite)]
}

/// What the norm and SiLU must give, from what the norm `plain` must for a gradient of its output. z, which SiLU is
/// taken of, is stored, and so is its gradient dz: both round to the elements' type.
///
/// ```text
/// y    what z errs by, times silu', and 5 u |y|; 9 u in f64, of which 4 are the oracle's
/// dz   what z errs by, times |dy| / 2 (the most that silu' changes), and 9 u |dy| s (1 + |z| (1 - s))
/// ```
///
/// The gradients have the norm's bounds for dz, and what comes of dz's own error.
pub(super) fn after(given: &Given, plain: impl Fn(Option<&[f64]>) -> Vec<Expected>) -> Vec<Expected> {
    let u = given.unit;
    let half_ulp = |value: f64| given.element_half_ulp.map_or(0.0, |half_ulp| half_ulp(value.abs()));
    let mut forward = plain(None);
    let Some(y) = forward.iter_mut().find(|of| of.slot == Slot::Y) else { return Vec::new() };
    let z: Vec<TwoFloat> = y.values.clone();
    let errs: Vec<f64> = z
        .iter()
        .zip(&y.scales)
        .map(|(z, scale)| u * (y.bound * scale + z.hi().abs()) + half_ulp(z.hi()))
        .collect();
    let own = if given.double { 9.0 } else { 5.0 };
    for (i, (z, errs)) in z.iter().zip(&errs).enumerate() {
        let [value, slope, _] = silu(z.hi());
        y.values[i] = TwoFloat::new_add(value, slope * z.lo());
        y.scales[i] = ((slope.abs() * errs + errs * errs / 2.0) / u + own * value.abs()) / y.bound;
    }
    y.rounding = false;
    let Some(dy) = given.get(Slot::Dy) else { return forward };
    let gradient = |(dy, z): (&f64, &TwoFloat)| dy * silu(z.hi())[1];
    let dz: Vec<f64> = dy.iter().zip(&z).map(gradient).collect();
    let lacks: Vec<f64> = (0..dz.len())
        .map(|i| dy[i].abs() * (errs[i] / 2.0 + 9.0 * u * silu(z[i].hi())[2]) + half_ulp(dz[i]))
        .collect();
    let backward = plain(Some(&dz)).into_iter().zip(plain(Some(&lacks)));
    let gradients = backward.filter(|(of, _)| [Slot::Dx, Slot::Dweight, Slot::Dbias].contains(&of.slot));
    forward.extend(gradients.map(|(mut of, lacking)| {
        let times = if of.slot == Slot::Dx { THROUGH_A_NORM } else { 1.0 };
        for (scale, lacking) in of.scales.iter_mut().zip(lacking.scales) {
            *scale += times * lacking / (of.bound * u);
        }
        of
    }));
    forward
}
