//! Halves from and to f32, in bulk.

use crate::rows::{Place, PlaceMut};
use crate::vector::{convert::Convert, dispatch};
use crate::{Element, Error, Run};

/// Elements as the type that they accumulate in: halves as f32. Exact, subnormals too; a NaN stays one.
///
/// One thread; nothing is allocated. The same bits at every level.
///
/// # Errors
/// Before anything is written: [`Error::Length`], [`Error::Level`].
///
/// ```
/// use half::bf16;
/// use layernorm::{Run, widen};
///
/// let mut wide = [0.0; 3];
/// widen(&[1.5, -2.0, f32::INFINITY].map(bf16::from_f32), &mut wide, Run::default())?;
/// assert_eq!(wide, [1.5, -2.0, f32::INFINITY]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn widen<E: Element>(from: &[E], to: &mut [E::Acc], run: Run) -> Result<(), Error> {
    let len = expect(from.len(), to.len())?;
    let (from, to) = (Place::own(from.as_ptr()), PlaceMut::wide(to.as_mut_ptr()));
    dispatch(run.level()?, Convert { from, to, len });
    Ok(())
}

/// Numbers rounded once, to nearest even, to elements: f32 to halves. What is beyond the largest half becomes
/// infinity, as IEEE 754 says; a NaN stays one; subnormals are kept.
///
/// One thread; nothing is allocated. The same bits at every level.
///
/// # Errors
/// Before anything is written: [`Error::Length`], [`Error::Level`].
///
/// ```
/// use half::f16;
/// use layernorm::{Run, narrow};
///
/// let mut halves = [f16::ZERO; 3];
/// narrow(&[0.1, 2049.0, 65520.0], &mut halves, Run::default())?; // 2049 lies in the middle of two
/// assert_eq!(halves.map(f32::from), [0.099975586, 2048.0, f32::INFINITY]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn narrow<E: Element>(from: &[E::Acc], to: &mut [E], run: Run) -> Result<(), Error> {
    let len = expect(from.len(), to.len())?;
    let (from, to) = (Place::wide(from.as_ptr()), PlaceMut::own(to.as_mut_ptr()));
    dispatch(run.level()?, Convert { from, to, len });
    Ok(())
}

fn expect(expected: usize, got: usize) -> Result<usize, Error> {
    if got == expected { Ok(got) } else { Err(Error::Length { what: "to", expected, got }) }
}
