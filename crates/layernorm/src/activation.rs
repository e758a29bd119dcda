//! SiLU, the activation that follows a group norm (Elfwing, Uchibe, Doya 2017, arXiv:1702.03118, equation 5; also
//! named swish), and its gradient:
//!
//! ```text
//! silu(x)  = x / (1 + exp(-x))
//! silu'(x) = s (1 + x (1 - s))       s = 1 / (1 + exp(-x))
//! ```
//!
//! exp is ours, because those of C libraries differ from one platform to the next. It is taken of -|x| alone, so it
//! can't overflow. `docs/numerics.md` states the steps, each of which rounds once.

use crate::vector::{Body, Memory, Vector};
use crate::{Element, Error, Real, Run, threads};

/// What follows a norm, on each number of its output.
///
/// ```
/// assert_eq!(layernorm::Activation::default(), layernorm::Activation::None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// [`silu`] of the output, as it is stored.
    Silu,
}

/// y = x / (1 + exp(-x)), number by number. Any NaN gives NaN; -infinity gives -0.
///
/// Errs by at most 5 u |y| + 2^-149 in f32 and 5 u |y| + 2^-1074 in f64 (`docs/numerics.md`), and half a unit of the
/// last digit in a half type. The same bits at every level.
///
/// # Errors
/// Before anything is written: [`Error::Length`], [`Error::Level`].
///
/// ```
/// let mut y = [0.0f32; 3];
/// layernorm::silu(&[-1e9, 0.0, 200.0], &mut y, layernorm::Run::default())?;
/// assert_eq!(y, [-0.0, 0.0, 200.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn silu<E: Element>(x: &[E], y: &mut [E], run: Run) -> Result<(), Error> {
    expect("y", x.len(), y.len())?;
    split(Activate { x: x.as_ptr(), dy: None, to: y.as_mut_ptr(), n: x.len() }, run)
}

/// [`silu`] in place. The same bits.
///
/// # Errors
/// [`Error::Level`].
///
/// ```
/// let mut x = [0.0f64, 100.0];
/// layernorm::silu_in_place(&mut x, layernorm::Run::default())?;
/// assert_eq!(x, [0.0, 100.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn silu_in_place<E: Element>(x: &mut [E], run: Run) -> Result<(), Error> {
    let to = x.as_mut_ptr();
    split(Activate { x: to, dy: None, to, n: x.len() }, run)
}

/// dx = dy silu'(x), number by number, given the x of [`silu`] and the gradient of its y.
///
/// With s = 1 / (1 + exp(-x)), dx errs by at most 6 u |dy| s (1 + |x| (1 - s)) + 2^-149 max(1, |dy|) in f32, and 9 u in f64.
///
/// # Errors
/// As [`silu`].
///
/// ```
/// let mut dx = [0.0f32; 2];
/// layernorm::silu_backward(&[0.0, 100.0], &[3.0, 3.0], &mut dx, layernorm::Run::default())?;
/// assert_eq!(dx, [1.5, 3.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn silu_backward<E: Element>(x: &[E], dy: &[E], dx: &mut [E], run: Run) -> Result<(), Error> {
    expect("dy", x.len(), dy.len())?;
    expect("dx", x.len(), dx.len())?;
    split(Activate { x: x.as_ptr(), dy: Some(dy.as_ptr()), to: dx.as_mut_ptr(), n: x.len() }, run)
}

/// [`silu_backward`] in place: `dy` becomes dx. The same bits.
///
/// # Errors
/// As [`silu`].
///
/// ```
/// let mut dy = [3.0f32];
/// layernorm::silu_backward_in_place(&[0.0], &mut dy, layernorm::Run::default())?;
/// assert_eq!(dy, [1.5]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn silu_backward_in_place<E: Element>(x: &[E], dy: &mut [E], run: Run) -> Result<(), Error> {
    expect("dy", x.len(), dy.len())?;
    let to = dy.as_mut_ptr();
    split(Activate { x: x.as_ptr(), dy: Some(to), to, n: x.len() }, run)
}

fn expect(what: &'static str, expected: usize, got: usize) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::Length { what, expected, got }) }
}

/// `to` = silu(x), or dy silu'(x) where there is a gradient. Each has `n` numbers, and `to`, which is nobody else's,
/// may be one of the others.
#[derive(Clone, Copy)]
pub(crate) struct Activate<E> {
    pub(crate) x: *const E,
    pub(crate) dy: Option<*const E>,
    pub(crate) to: *mut E,
    pub(crate) n: usize,
}

// SAFETY: slices by another name, of which a thread gets a part of its own.
unsafe impl<E: Send + Sync> Sync for Activate<E> {}

/// Over the threads of a call.
fn split<E: Element>(all: Activate<E>, run: Run) -> Result<(), Error> {
    let level = run.level()?;
    let all = &all;
    threads::over_rows(threads::parts(run.threads(), all.n, 1), all.n, move |numbers| {
        let at = numbers.start;
        // SAFETY: a part of the numbers.
        let part = unsafe {
            Activate {
                x: all.x.add(at),
                dy: all.dy.map(|dy| dy.add(at)),
                to: all.to.add(at),
                n: numbers.len(),
            }
        };
        E::activate(part, level);
    });
    Ok(())
}

impl<E: Element> Body<E> for Activate<E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<E>>(self, s: S) {
        let Self { x, dy, to, n } = self;
        for at in (0..n).step_by(S::WIDTH) {
            let count = S::WIDTH.min(n - at);
            // SAFETY: all have `n` numbers.
            unsafe {
                let load = |from: *const E| match count == S::WIDTH {
                    true => s.read(from.add(at)),
                    false => s.read_first(from.add(at), count),
                };
                let value = match dy {
                    None => silu_of(s, load(x)),
                    Some(dy) => s.mul(load(dy), slope_of(s, load(x))),
                };
                match count == S::WIDTH {
                    true => s.write(to.add(at), value),
                    false => s.write_first(to.add(at), value, count),
                }
            }
        }
    }
}

/// exp(w) = p 2^n 2^m, and the three; for w of -`VANISHES` to 0, or NaN.
struct Exp<V> {
    value: V,
    p: V,
    powers: [V; 2],
}

#[inline(always)]
fn exp<T: Real, S: Vector<T>>(s: S, w: S::V) -> Exp<S::V> {
    let [magic, half, one] = [s.splat(T::MAGIC), s.splat(T::from_f64(0.5)), s.splat(T::from_f64(1.0))];
    let exponent = s.sub(s.fma(w, s.splat(T::LOG2_E), magic), magic);
    let r = T::LN_2.iter().fold(w, |r, ln_2| s.fnma(exponent, s.splat(*ln_2), r));
    let [first, rest @ ..] = T::EXP else { unreachable!("there are coefficients") };
    let sum = rest.iter().fold(s.splat(*first), |sum, coefficient| s.fma(sum, r, s.splat(*coefficient)));
    let p = s.add(s.fma(s.mul(r, r), sum, r), one);
    // In two steps, of which only the second can leave the normal numbers.
    let n = s.fma(exponent, half, magic);
    let m = s.add(s.sub(exponent, s.sub(n, magic)), magic);
    let powers = [s.power_of_two(n), s.power_of_two(m)];
    Exp { value: s.mul(s.mul(p, powers[0]), powers[1]), p, powers }
}

/// -|x|, not below where exp vanishes.
#[inline(always)]
fn minus_magnitude<T: Real, S: Vector<T>>(s: S, x: S::V) -> S::V {
    let low = s.splat(T::VANISHES.neg());
    let minus = s.sub(s.splat(T::from_f64(-0.0)), x);
    let w = s.select_less(x, minus, x, minus);
    s.select_less(w, low, low, w)
}

#[inline(always)]
fn silu_of<T: Real, S: Vector<T>>(s: S, x: S::V) -> S::V {
    let [zero, one] = [s.splat(T::from_f64(0.0)), s.splat(T::from_f64(1.0))];
    let low = s.splat(T::VANISHES.neg());
    let exp = exp(s, minus_magnitude(s, x));
    let x = s.select_less(x, low, low, x);
    // Where x < 0, x exp(x) / (1 + exp(x)): its exponent comes last, so that nothing is lost before.
    let p = s.select_less(x, zero, exp.p, one);
    let powers = exp.powers.map(|power| s.select_less(x, zero, power, one));
    let quotient = s.div(s.mul(x, p), s.add(one, exp.value));
    s.mul(s.mul(quotient, powers[0]), powers[1])
}

#[inline(always)]
fn slope_of<T: Real, S: Vector<T>>(s: S, x: S::V) -> S::V {
    let [zero, one] = [s.splat(T::from_f64(0.0)), s.splat(T::from_f64(1.0))];
    let [low, high] = [s.splat(T::VANISHES.neg()), s.splat(T::VANISHES)];
    let x = s.select_less(x, low, low, x);
    let x = s.select_less(high, x, high, x);
    let exp = exp(s, minus_magnitude(s, x));
    let sum = s.add(one, exp.value);
    // The exponent of the sigmoid comes last, as above.
    let sigmoid = s.div(s.select_less(x, zero, exp.p, one), sum);
    let powers = exp.powers.map(|power| s.select_less(x, zero, power, one));
    let opposite = s.div(s.select_less(x, zero, one, exp.value), sum);
    let slope = s.mul(sigmoid, s.fma(x, opposite, one));
    s.mul(s.mul(slope, powers[0]), powers[1])
}
