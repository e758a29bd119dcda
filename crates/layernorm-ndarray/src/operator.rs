//! The norms, as a value: which kernel, and what it saves.

use layernorm::{
    Companion, Element, Epsilon, Error, Gradients, HeadNorm, ParamGradients, Params, QkParams, RmsParams,
    Rounding, Rows, RowsMut, Run, StatsMut, StatsRef,
};
use std::ops::Range;

/// Which norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Operator {
    Layer,
    Rms(Options),
    /// L2 norm, and scale norm, whose one weight is the scale. It saves lengths with such weights only.
    Length,
}

/// What models do differently in RMS norm: see [`RmsParams`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Options {
    pub(crate) weight_offset: f64,
    pub(crate) partial: Option<usize>,
    pub(crate) epsilon: Epsilon,
    pub(crate) rounding: Rounding,
}

impl Options {
    fn with<P>(self, params: Params<'_, P>) -> RmsParams<'_, P> {
        let Self { weight_offset, partial, epsilon, rounding } = self;
        RmsParams { weight_offset, partial, epsilon, rounding, ..params.into() }
    }
}

/// Statistics of rows, to write. RMS norm has but `rstd`; the others are empty.
pub(crate) type Saved<'a, A> = Option<StatsMut<'a, A>>;
/// Statistics of rows, to read.
pub(crate) type SavedRef<'a, A> = Option<StatsRef<'a, A>>;

impl Operator {
    /// As in every framework.
    pub(crate) const RMS: Self = Self::Rms(Options {
        weight_offset: 0.0,
        partial: None,
        epsilon: Epsilon::Inside,
        rounding: Rounding::Once,
    });

    pub(crate) fn forward<E: Element, P: Companion<E>>(
        self,
        x: Rows<'_, E>,
        params: Params<'_, P>,
        y: RowsMut<'_, E>,
        saved: Saved<'_, E::Acc>,
        run: Run,
    ) -> Result<(), Error> {
        match self {
            Self::Layer => layernorm::layer_norm(x, params, y, saved, run),
            Self::Rms(of) => layernorm::rms_norm(x, of.with(params), y, saved.map(|saved| saved.rstd), run),
            Self::Length => match (saved, params.weight) {
                (None, _) => layernorm::qk_norm(x, by_length(params), y, run),
                (Some(saved), Some([scale, ..])) => {
                    layernorm::scale_norm(x, *scale, params.eps, y, Some(saved.rstd), run)
                }
                (Some(saved), _) => layernorm::l2_norm(x, params.eps, y, Some(saved.rstd), run),
            },
        }
    }

    pub(crate) fn in_place<E: Element, P: Companion<E>>(
        self,
        x: RowsMut<'_, E>,
        params: Params<'_, P>,
        saved: Saved<'_, E::Acc>,
        run: Run,
    ) -> Result<(), Error> {
        match self {
            Self::Layer => layernorm::layer_norm_in_place(x, params, saved, run),
            Self::Rms(of) => {
                layernorm::rms_norm_in_place(x, of.with(params), saved.map(|saved| saved.rstd), run)
            }
            Self::Length => match (saved, params.weight) {
                (None, _) => layernorm::qk_norm_in_place(x, by_length(params), run),
                (Some(saved), Some([scale, ..])) => {
                    layernorm::scale_norm_in_place(x, *scale, params.eps, Some(saved.rstd), run)
                }
                (Some(saved), _) => layernorm::l2_norm_in_place(x, params.eps, Some(saved.rstd), run),
            },
        }
    }

    pub(crate) fn backward<E: Element, P: Companion<E>>(
        self,
        [x, dy]: [Rows<'_, E>; 2],
        params: Params<'_, P>,
        saved: SavedRef<'_, E::Acc>,
        gradients: Gradients<'_, E>,
        run: Run,
    ) -> Result<(), Error> {
        match self {
            Self::Layer => layernorm::layer_norm_backward(x, dy, params, saved, gradients, run),
            Self::Rms(of) => layernorm::rms_norm_backward(
                x,
                dy,
                of.with(params),
                saved.map(|saved| saved.rstd),
                gradients,
                run,
            ),
            Self::Length => layernorm::qk_norm_backward(x, dy, by_length(params), gradients, run),
        }
    }

    pub(crate) fn backward_in_place<E: Element, P: Companion<E>>(
        self,
        (x, dy): (Rows<'_, E>, RowsMut<'_, E>),
        params: Params<'_, P>,
        saved: SavedRef<'_, E::Acc>,
        gradients: Option<ParamGradients<'_, E::Acc>>,
        run: Run,
    ) -> Result<(), Error> {
        match self {
            Self::Layer => layernorm::layer_norm_backward_in_place(x, dy, params, saved, gradients, run),
            Self::Rms(of) => {
                let rstd = saved.map(|saved| saved.rstd);
                layernorm::rms_norm_backward_in_place(x, dy, of.with(params), rstd, gradients, run)
            }
            Self::Length => layernorm::qk_norm_backward_in_place(x, dy, by_length(params), gradients, run),
        }
    }

    /// Are these the statistics of so many rows?
    pub(crate) fn check<A>(self, saved: SavedRef<'_, A>, rows: usize) -> Result<(), Error> {
        let Some(StatsRef { m, c, rstd }) = saved else { return Ok(()) };
        for (what, got) in [("m", m.len()), ("c", c.len()), ("rstd", rstd.len())] {
            if got != rows && (self == Self::Layer || what == "rstd") {
                return Err(Error::Length { what, expected: rows, got });
            }
        }
        Ok(())
    }
}

/// Norm by length, as the kernel that takes any weight has it.
fn by_length<P>(Params { weight, bias, eps }: Params<'_, P>) -> QkParams<'_, P> {
    QkParams { norm: HeadNorm::L2, heads: 1, weight, bias, eps }
}

/// Those of some rows. They must be there.
pub(crate) fn part<'a, A>(of: &'a mut Saved<'_, A>, rows: Range<usize>) -> Saved<'a, A> {
    // Of RMS norm there is no m and no c.
    let of = of.as_mut()?;
    let (m, c) = (of.m.get_mut(rows.clone()), of.c.get_mut(rows.clone()));
    Some(StatsMut { m: m.unwrap_or_default(), c: c.unwrap_or_default(), rstd: &mut of.rstd[rows] })
}

/// As [`part`], to read.
pub(crate) fn part_ref<A>(of: SavedRef<'_, A>, rows: Range<usize>) -> SavedRef<'_, A> {
    let of = of?;
    let (m, c) = (of.m.get(rows.clone()), of.c.get(rows.clone()));
    Some(StatsRef { m: m.unwrap_or_default(), c: c.unwrap_or_default(), rstd: &of.rstd[rows] })
}

/// Those of the rows before `at`, and the others.
pub(crate) fn split<A>(of: Saved<'_, A>, at: usize) -> [Saved<'_, A>; 2] {
    let Some(StatsMut { m, c, rstd }) = of else { return [None, None] };
    let [m, c] = [m, c].map(|column| column.split_at_mut_checked(at).unwrap_or_default());
    let rstd = rstd.split_at_mut(at);
    [Some(StatsMut { m: m.0, c: c.0, rstd: rstd.0 }), Some(StatsMut { m: m.1, c: c.1, rstd: rstd.1 })]
}
