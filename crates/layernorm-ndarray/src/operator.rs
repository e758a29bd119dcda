//! The norms, as a value: which kernel, and what it saves.

use layernorm::{
    Companion, Element, Error, Gradients, ParamGradients, Params, Rows, RowsMut, Run, StatsMut, StatsRef,
};
use std::ops::Range;

/// Which norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Layer,
    Rms,
}

/// Statistics of rows, to write. RMS norm has but `rstd`; the others are empty.
pub(crate) type Saved<'a, A> = Option<StatsMut<'a, A>>;
/// Statistics of rows, to read.
pub(crate) type SavedRef<'a, A> = Option<StatsRef<'a, A>>;

impl Operator {
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
            Self::Rms => layernorm::rms_norm(x, params, y, saved.map(|saved| saved.rstd), run),
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
            Self::Rms => layernorm::rms_norm_in_place(x, params, saved.map(|saved| saved.rstd), run),
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
            Self::Rms => {
                layernorm::rms_norm_backward(x, dy, params, saved.map(|saved| saved.rstd), gradients, run)
            }
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
            Self::Rms => {
                let rstd = saved.map(|saved| saved.rstd);
                layernorm::rms_norm_backward_in_place(x, dy, params, rstd, gradients, run)
            }
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
