//! QK norm: each head of the queries or the keys of attention by itself, where it lies in a buffer of q, k and v.
//!
//! ```text
//! y = weight x_hat + bias        for each head of each token
//! ```
//!
//! with x_hat of RMS norm, of layer norm (Dehghani et al. 2023, arXiv:2302.05442) or of L2 norm (Henry et al. 2020,
//! arXiv:2010.04245). A weight is of all heads, and then this is [`rms_norm`](crate::rms_norm()) of [`Rows::heads`], or
//! each head has its own.

use crate::affine::{Affine, Runs};
use crate::by_row::{Statistics, backward::Backward, forward::Forward};
use crate::form::Form;
use crate::rows::{Groups, Shape};
use crate::scale_norm::of_length;
use crate::{Companion, Element, Error, Gradients, ParamGradients, Params, Real, Rows, RowsMut, Run};

/// Where the heads of some tokens lie in a buffer: head `h` of token `t` is the `head_dim` numbers from
/// `offset + t * stride + h * head_dim` on.
///
/// ```
/// use layernorm::Heads;
///
/// // 10 tokens; 8 heads of queries, and 2 of keys and of values, 64 numbers each, in one buffer.
/// let q = Heads { tokens: 10, heads: 8, head_dim: 64, stride: (8 + 2 + 2) * 64, offset: 0 };
/// let k = Heads { heads: 2, offset: 8 * 64, ..q };
/// assert_eq!(k.stride, q.stride);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Tokens.
    pub tokens: usize,
    /// Heads of a token, which follow each other.
    pub heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
    /// Numbers from the start of a token to the start of the next.
    pub stride: usize,
    /// Where the first head of the first token starts.
    pub offset: usize,
}

impl Heads {
    /// The rows from `offset` on, in a buffer of `len` numbers.
    pub(crate) fn rows(self, len: usize) -> Result<(Shape, Groups), Error> {
        let Self { tokens, heads, head_dim, stride, offset } = self;
        let overflow = |rows, stride| Error::Overflow { rows, stride };
        let width = heads.checked_mul(head_dim).ok_or(overflow(heads, head_dim))?;
        if stride < width {
            return Err(Error::Stride { stride, features: width });
        }
        let rows = tokens.checked_mul(heads).ok_or(overflow(tokens, heads))?;
        if rows > 0 {
            let extent = (tokens - 1).checked_mul(stride).and_then(|start| start.checked_add(width));
            let extent = extent.and_then(|extent| extent.checked_add(offset));
            let expected = extent.ok_or(overflow(tokens, stride))?;
            if len < expected {
                return Err(Error::Length { what: "the slice under the heads", expected, got: len });
            }
        }
        let shape = |stride| Shape { rows, features: head_dim, stride };
        Ok(match heads {
            // Plain rows go the shorter way.
            1 => (shape(stride), Groups::NONE),
            _ if stride == width => (shape(head_dim), Groups::NONE),
            _ => (shape(head_dim), Groups { rows: heads, stride }),
        })
    }
}

/// By what a head is measured.
///
/// ```
/// assert_eq!(layernorm::HeadNorm::default(), layernorm::HeadNorm::Rms);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HeadNorm {
    /// Its root mean square: x / sqrt(mean(x^2) + eps).
    #[default]
    Rms,
    /// Mean and deviation: (x - mean) / sqrt(var + eps).
    Layer,
    /// Its length: x / max(|x|, eps).
    L2,
}

/// What a QK norm does.
///
/// ```
/// use layernorm::{HeadNorm, QkParams};
///
/// let params = QkParams { norm: HeadNorm::L2, heads: 2, weight: Some(&[3.0f32, 0.5]), eps: 1e-12, ..QkParams::default() };
/// assert!(params.bias.is_none());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct QkParams<'a, T> {
    /// By what heads are measured. Default: their root mean square.
    pub norm: HeadNorm,
    /// Heads of a token: row `r` is head `r % heads`. Default 1.
    pub heads: usize,
    /// gamma: absent, one number, one a number of a head, or so many for each head.
    pub weight: Option<&'a [T]>,
    /// beta: as many. A backward pass does not read it.
    pub bias: Option<&'a [T]>,
    /// Rounded once to the accumulation type, where it must be finite and not negative. Default 1e-5.
    pub eps: f64,
}

impl<T> Default for QkParams<'_, T> {
    fn default() -> Self {
        Self { norm: HeadNorm::Rms, heads: 1, weight: None, bias: None, eps: 1e-5 }
    }
}

impl<'a, P> QkParams<'a, P> {
    fn statistics(&self) -> Statistics {
        match self.norm {
            HeadNorm::Layer => Statistics::Centred,
            HeadNorm::Rms | HeadNorm::L2 => Statistics::Uncentred,
        }
    }

    fn form<T: Real>(&self, features: usize) -> Result<Form<T>, Error> {
        match self.norm {
            HeadNorm::L2 => of_length(self.eps, features),
            HeadNorm::Rms | HeadNorm::Layer => Form::new(self.eps, features),
        }
    }

    /// Are rows the heads of whole tokens?
    fn check(&self, shape: Shape, groups: Groups) -> Result<(), Error> {
        let (rows, heads) = (shape.rows, self.heads);
        let whole = heads > 0 && rows.is_multiple_of(heads);
        if whole && (groups == Groups::NONE || groups.rows == heads) {
            return Ok(());
        }
        let group = if groups == Groups::NONE { rows } else { groups.rows };
        Err(Error::Heads { rows, group, heads })
    }

    /// Is there one for each head?
    fn by_head(&self, len: Option<usize>, head_dim: usize) -> bool {
        self.heads > 1 && len == self.heads.checked_mul(head_dim)
    }

    fn affine<E: Element>(
        &self,
        what: &'static str,
        values: Option<&'a [P]>,
        absent: f64,
        head_dim: usize,
    ) -> Result<Affine<'a, E>, Error>
    where
        P: Companion<E>,
    {
        let by_head = self.by_head(values.map(<[P]>::len), head_dim);
        if !by_head {
            Affine::<E>::expect(what, values.map(<[P]>::len), head_dim)?;
        }
        let runs = Runs { run: 1, per_row: if by_head { head_dim } else { 0 } };
        Ok(Affine::with(values.map(P::values), absent, None, runs))
    }

    fn forward<E: Element>(&self, call: Forward<'a, E>, run: Run) -> Result<(), Error>
    where
        P: Companion<E>,
    {
        let head_dim = call.shape.features;
        let form = self.form(head_dim)?;
        let weight = self.affine("weight", self.weight, 1.0, head_dim)?;
        let bias = self.affine("bias", self.bias, -0.0, head_dim)?;
        Forward { form, weight, bias, ..call }.run(self.statistics(), run)
    }

    fn backward<E: Element>(
        &self,
        call: Backward<'a, E>,
        of_params: Option<ParamGradients<'_, E::Acc>>,
        run: Run,
    ) -> Result<(), Error>
    where
        P: Companion<E>,
    {
        let head_dim = call.shape.features;
        let (form, weight) = (self.form(head_dim)?, self.affine("weight", self.weight, 1.0, head_dim)?);
        Backward { form, weight, ..call }.run(self.statistics(), of_params, run)
    }

    /// The parameters of one head.
    fn of_head(&self, head: usize, head_dim: usize) -> Self {
        let of = |values: Option<&'a [P]>| match values {
            Some(values) if self.by_head(Some(values.len()), head_dim) => {
                Some(&values[head * head_dim..][..head_dim])
            }
            other => other,
        };
        Self { heads: 1, weight: of(self.weight), bias: of(self.bias), ..*self }
    }

    /// Is a gradient of the parameters wanted for each head by itself?
    fn gradients_by_head<T>(
        &self,
        of: Option<&ParamGradients<'_, T>>,
        head_dim: usize,
    ) -> Result<bool, Error> {
        let Some(of) = of else { return Ok(false) };
        let lengths =
            [("dweight", of.dweight.as_deref()), ("dbias", of.dbias.as_deref())].map(|(what, values)| {
                values.map(|values| (what, values.len(), self.by_head(Some(values.len()), head_dim)))
            });
        if !lengths.iter().flatten().any(|(_, _, by_head)| *by_head) {
            return Ok(false);
        }
        match lengths.into_iter().flatten().find(|(_, _, by_head)| !by_head) {
            Some((what, got, _)) => Err(Error::Length { what, expected: self.heads * head_dim, got }),
            None => Ok(true),
        }
    }
}

/// The gradients of one head's parameters.
fn of_head<'a, T>(of: &'a mut ParamGradients<'_, T>, head: usize, head_dim: usize) -> ParamGradients<'a, T> {
    let part = |values: &'a mut [T]| &mut values[head * head_dim..][..head_dim];
    ParamGradients {
        dweight: of.dweight.as_deref_mut().map(part),
        dbias: of.dbias.as_deref_mut().map(part),
        accumulate: of.accumulate,
        first_row: of.first_row,
        workspace: of.workspace,
    }
}

/// QK norm: each head of `x` normalised, into `y`.
///
/// `x` and `y` are [`Rows::heads`], or plain rows that are the heads of one token after the other. Without weights of
/// its own for each head it is [`rms_norm`](crate::rms_norm()), [`layer_norm`](crate::layer_norm()) or
/// [`l2_norm`](crate::l2_norm) of the same rows, to the bit; these save statistics, too. Nothing is allocated or copied.
///
/// # Errors
/// Before anything is written: [`Error::Shape`], [`Error::Heads`], [`Error::Length`], [`Error::Epsilon`],
/// [`Error::Level`].
///
/// ```
/// use layernorm::{Heads, QkParams, Rows, RowsMut, Run, qk_norm};
///
/// let qkv = [3.0f32, -5.0, 7.0, 9.0, 2.0, 4.0, 6.0, 8.0]; // two tokens; two heads of one number in q and in k
/// let q = Heads { tokens: 2, heads: 2, head_dim: 1, stride: 4, offset: 0 };
/// let params = QkParams { heads: 2, weight: Some(&[1.0, 10.0]), eps: 0.0, ..QkParams::default() };
/// let mut y = [0.0; 4];
/// qk_norm(Rows::heads(&qkv, q)?, params, RowsMut::new(&mut y, 1)?, Run::default())?;
/// assert_eq!(y, [1.0, -10.0, 1.0, 10.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn qk_norm<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    params: QkParams<'_, P>,
    y: RowsMut<'_, E>,
    run: Run,
) -> Result<(), Error> {
    params.check(x.shape(), x.groups())?;
    params.forward(Forward::new(x, plain::<E>(params.eps), y, None)?, run)
}

/// [`qk_norm`] in place: each head of `x` becomes its norm, and nothing else in the buffer is touched. The same bits.
///
/// # Errors
/// As [`qk_norm`].
///
/// ```
/// use layernorm::{Heads, QkParams, RowsMut, Run, qk_norm_in_place};
///
/// let mut qk = [3.0f64, -5.0, 7.0, 9.0];
/// let k = Heads { tokens: 1, heads: 2, head_dim: 1, stride: 4, offset: 2 };
/// let params = QkParams { heads: 2, weight: Some(&[2.0]), eps: 0.0, ..QkParams::default() };
/// qk_norm_in_place(RowsMut::heads(&mut qk, k)?, params, Run::default())?;
/// assert_eq!(qk, [3.0, -5.0, 2.0, 2.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn qk_norm_in_place<E: Element, P: Companion<E>>(
    x: RowsMut<'_, E>,
    params: QkParams<'_, P>,
    run: Run,
) -> Result<(), Error> {
    params.check(x.shape(), x.as_rows().groups())?;
    params.forward(Forward::in_place(x, plain::<E>(params.eps), None)?, run)
}

/// The gradients of [`qk_norm`], given that of its output.
///
/// The statistics are taken from `x` once more. Gradients of parameters are one number, one for each number of a head
/// (summed over rows: token by token, head by head), or so many for each head, both alike; then each head's are summed
/// over tokens, and `first_row` is the first token. They need a workspace, which allocates where it is too small.
///
/// # Errors
/// As [`qk_norm`], and [`Error::RowIndex`].
///
/// ```
/// use layernorm::{Gradients, ParamGradients, QkParams, Rows, Run, Workspace, qk_norm_backward};
///
/// let (x, dy) = (Rows::new(&[3.0f64, -5.0, 2.0, 4.0], 1)?, Rows::new(&[1.0; 4], 1)?);
/// let params = QkParams { heads: 2, weight: Some(&[1.0, 10.0]), eps: 0.0, ..QkParams::default() };
/// let mut dweight = [0.0; 2];
/// let of_params = ParamGradients {
///     dweight: Some(&mut dweight), dbias: None, accumulate: false, first_row: 0, workspace: &mut Workspace::new(),
/// };
/// qk_norm_backward(x, dy, params, Gradients { dx: None, params: Some(of_params) }, Run::default())?;
/// assert_eq!(dweight, [2.0, 0.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn qk_norm_backward<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: Rows<'_, E>,
    params: QkParams<'_, P>,
    mut gradients: Gradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let (head_dim, heads) = (x.features(), params.heads);
    params.check(x.shape(), x.groups())?;
    if !params.gradients_by_head(gradients.params.as_ref(), head_dim)? {
        let call = Backward::new(x, dy, plain::<E>(params.eps), None, gradients.dx)?;
        return params.backward(call, gradients.params, run);
    }
    params.check(dy.shape(), dy.groups())?;
    dy.shape().expect("dy", x.shape())?;
    if let Some(dx) = &gradients.dx {
        params.check(dx.shape(), dx.as_rows().groups())?;
        dx.shape().expect("dx", x.shape())?;
    }
    // What is wrong shows at the first head, before anything is written.
    for head in 0..heads {
        let dx = gradients.dx.as_mut().map(|dx| dx.every(head, heads));
        let (x, dy) = (x.every(head, heads), dy.every(head, heads));
        let call = Backward::new(x, dy, plain::<E>(params.eps), None, dx)?;
        let of_params = gradients.params.as_mut().map(|of| of_head(of, head, head_dim));
        params.of_head(head, head_dim).backward(call, of_params, run)?;
    }
    Ok(())
}

/// [`qk_norm_backward`] in place: each head of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`qk_norm_backward`].
///
/// ```
/// use layernorm::{QkParams, Rows, RowsMut, Run, qk_norm_backward_in_place};
///
/// let mut dy = [1.0f64, 2.0];
/// let params = QkParams::<f64> { eps: 0.0, ..QkParams::default() };
/// qk_norm_backward_in_place(Rows::new(&[1.0, 2.0], 2)?, RowsMut::new(&mut dy, 2)?, params, None, Run::default())?;
/// assert!(dy.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn qk_norm_backward_in_place<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    mut dy: RowsMut<'_, E>,
    params: QkParams<'_, P>,
    mut param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let (head_dim, heads) = (x.features(), params.heads);
    params.check(x.shape(), x.groups())?;
    if !params.gradients_by_head(param_gradients.as_ref(), head_dim)? {
        let call = Backward::in_place(x, dy, plain::<E>(params.eps), None)?;
        return params.backward(call, param_gradients, run);
    }
    params.check(dy.shape(), dy.as_rows().groups())?;
    dy.shape().expect("dy", x.shape())?;
    for head in 0..heads {
        let (x, dy) = (x.every(head, heads), dy.every(head, heads));
        let call = Backward::in_place(x, dy, plain::<E>(params.eps), None)?;
        let of_params = param_gradients.as_mut().map(|of| of_head(of, head, head_dim));
        params.of_head(head, head_dim).backward(call, of_params, run)?;
    }
    Ok(())
}

/// Without weight and bias, which [`QkParams`] add.
fn plain<E>(eps: f64) -> Params<'static, E>
where
    E: Element,
{
    Params { weight: None, bias: None, eps }
}
