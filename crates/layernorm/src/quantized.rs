//! A norm whose output is stored in eight bits, in one call:
//!
//! ```text
//! y     = layer_norm(x), or rms_norm(x), rounded to the type of x
//! scale = max |y| / largest      of each row; 1 where that is 0; or a given one
//! y_q   = nearest(y / scale)     to even, saturated at +-largest: 127, 448 (e4m3), 57344 (e5m2)
//! ```
//!
//! By the largest of each row (token): Dettmers et al. 2022, arXiv:2208.07339, sections 2.1 and 3.1, with the scale
//! turned over; fp8: Micikevicius et al. 2022, arXiv:2209.05433.

use crate::by_row::quantised::{Quantised, Scales};
use crate::by_row::{Statistics, forward::Forward};
use crate::rows::{Column, Mixed, Target};
use crate::{Companion, Element, Error, Params, Quantum, Rows, RowsMut, Run};

/// What the numbers of a row are divided by before they are rounded: y is about `scale` times what is stored.
///
/// ```
/// let mut of_rows = [0.0; 2];
/// let dynamic = layernorm::Scale::OfRows(&mut of_rows);
/// let fixed = layernorm::Scale::Given(0.05);
/// # let _ = (dynamic, fixed);
/// ```
#[derive(Debug)]
pub enum Scale<'a> {
    /// max |y| / [`Quantum::LARGEST`] of each row, which is written here: one number a row. Where that is 0, as in a
    /// row of zeros, it is 1. Where y holds an infinity it is infinite, and NaN where y holds a NaN: so a row that is
    /// spoilt stays so for who multiplies by its scale, whatever is stored.
    OfRows(&'a mut [f32]),
    /// This one for all rows, positive and finite. What is beyond the range saturates, infinities too.
    Given(f32),
}

/// [`layer_norm`](crate::layer_norm), stored in eight bits: y / scale, rounded to nearest even.
///
/// The bytes and scales are exactly those that [`quantize`] gives for the y of [`layer_norm`](crate::layer_norm):
/// y is rounded to the type of x first (f64 then to f32). Nothing is allocated, and y is never in memory.
///
/// A NaN is stored as NaN in fp8 and as 0 in `i8`; see [`Scale`] for how it shows there.
///
/// # Errors
/// Before anything is written: [`Error::Shape`], [`Error::Length`], [`Error::Epsilon`], [`Error::Scale`],
/// [`Error::Level`].
///
/// ```
/// use layernorm::{Params, Rows, RowsMut, Run, Scale, layer_norm_quantized};
///
/// let x = [1.0f32, 2.0, 3.0, 4.0, 5.0, 5.0];
/// let (mut y, mut scale) = ([0i8; 6], [0.0; 2]);
/// let params = Params { eps: 0.0, ..Params::<f32>::default() };
/// let (x, to) = (Rows::new(&x, 3)?, RowsMut::new(&mut y, 3)?);
/// layer_norm_quantized(x, params, to, Scale::OfRows(&mut scale), Run::default())?;
/// assert_eq!(y, [-127, 0, 127, -127, 64, 64]);
/// assert!((scale[1] * 127.0 - 2f32.sqrt()).abs() < 1e-6);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn layer_norm_quantized<E: Element, P: Companion<E>, Q: Quantum>(
    x: Rows<'_, E>,
    params: Params<'_, P>,
    y: RowsMut<'_, Q>,
    scale: Scale<'_>,
    run: Run,
) -> Result<(), Error> {
    quantised(x, params, Some(Statistics::Centred), y, scale)?.run(run)
}

/// [`rms_norm`](crate::rms_norm), stored in eight bits: as [`layer_norm_quantized`].
///
/// # Errors
/// As [`layer_norm_quantized`].
///
/// ```
/// use half::bf16;
/// use layernorm::{E4M3, Params, Quantum, Rows, RowsMut, Run, Scale, rms_norm_quantized};
///
/// let x = [1.0, 7.0].map(bf16::from_f32); // root mean square 5
/// let mut y = [E4M3::default(); 2];
/// let params = Params { weight: Some(&[5.0f32]), bias: None, eps: 0.0 };
/// rms_norm_quantized(Rows::new(&x, 2)?, params, RowsMut::new(&mut y, 2)?, Scale::Given(0.5), Run::default())?;
/// assert_eq!(y.map(Quantum::to_f32), [2.0, 14.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn rms_norm_quantized<E: Element, P: Companion<E>, Q: Quantum>(
    x: Rows<'_, E>,
    params: Params<'_, P>,
    y: RowsMut<'_, Q>,
    scale: Scale<'_>,
    run: Run,
) -> Result<(), Error> {
    quantised(x, params, Some(Statistics::Uncentred), y, scale)?.run(run)
}

/// Rows as they are, stored in eight bits: the second half of [`layer_norm_quantized`], for any rows.
///
/// # Errors
/// Before anything is written: [`Error::Shape`], [`Error::Length`], [`Error::Scale`], [`Error::Level`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, Scale, quantize};
///
/// let (mut y, mut scale) = ([0i8; 3], [0.0]);
/// let x = Rows::new(&[0.25f32, -25.4, 10.1], 3)?;
/// quantize(x, RowsMut::new(&mut y, 3)?, Scale::OfRows(&mut scale), Run::default())?;
/// assert_eq!((y, scale), ([1, -127, 50], [0.2]));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn quantize<E: Element, Q: Quantum>(
    x: Rows<'_, E>,
    y: RowsMut<'_, Q>,
    scale: Scale<'_>,
    run: Run,
) -> Result<(), Error> {
    quantised(x, Params::<E>::default(), None, y, scale)?.run(run)
}

fn quantised<'a, E: Element, P: Companion<E>, Q: Quantum>(
    x: Rows<'a, E>,
    params: Params<'a, P>,
    statistics: Option<Statistics>,
    y: RowsMut<'a, Q>,
    scale: Scale<'a>,
) -> Result<Quantised<'a, E>, Error> {
    let shape = x.shape();
    y.shape().expect("y", shape)?;
    let scale = match scale {
        Scale::OfRows(to) => Scales::OfRows(Column::new("scale", to, shape.rows)?),
        Scale::Given(scale) if scale > 0.0 && scale.is_finite() => Scales::Given(scale),
        Scale::Given(scale) => return Err(Error::Scale { scale }),
    };
    let nowhere = Target::every(&mut [], 0);
    let norm = Forward::over(shape, [Mixed::Own(x.source())], nowhere, params, None)?;
    Ok(Quantised { norm, statistics, format: Q::FORMAT, to: y.target().bytes(), scale })
}
