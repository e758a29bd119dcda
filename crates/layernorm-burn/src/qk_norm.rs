//! QK norm: queries and keys, head by head, before their product (with the length: Henry et al. 2020, arXiv:2010.04245;
//! with layer norm: Dehghani et al. 2023, arXiv:2302.05442, section 2), so that attention's logits stay bounded:
//!
//! ```text
//! y = gamma x_hat + beta        for each head of each token, with x_hat of RMS norm, layer norm or L2 norm
//! ```

use crate::apply::{apply, expect_epsilon, misfit, or_panic};
use crate::operator::{Backward, Forward, Kernels, Kind, Operator, SourceRows, UpstreamRows, last, wanted};
use crate::rms_norm::Rms;
use crate::{Error, layer_norm};
use burn::config::Config;
use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use layernorm::{Companion, Element, Gradients, Params, QkParams};

/// By what a head is measured.
///
/// ```
/// use layernorm_burn::{HeadNormKind, QkNormConfig};
///
/// let config = QkNormConfig::new(64).with_kind(HeadNormKind::L2);
/// assert_ne!(config.kind, HeadNormKind::Rms);
/// ```
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum HeadNormKind {
    /// Its root mean square: x / sqrt(mean(x^2) + epsilon).
    Rms,
    /// Mean and deviation: (x - mean) / sqrt(var + epsilon).
    Layer,
    /// Its length: x / max(|x|, epsilon).
    L2,
}

/// The norm of each head of `x`.
///
/// - `x`: `[..., heads, head_features]`, of any float type: queries or keys before their heads go in front of time, so
///   that nothing is copied;
/// - `gamma`, `beta`: a tensor of `[head_features]`, of `[heads * head_features]` (for each head its own; then both are
///   so), of `[1]`, or `None` (1 and 0);
/// - the result has the shape and the type of `x`.
///
/// # Panics
/// Where [`try_head_norm`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{HeadNormKind, head_norm};
///
/// let device = Device::flex();
/// let q = Tensor::<4>::from_data([[[[3.0, 4.0], [0.0, 2.0]]]], &device); // one token of two heads
/// let gamma = Tensor::<1>::from_data([1.0, 1.0, 5.0, 5.0], &device);
/// let y = head_norm(q, HeadNormKind::L2, gamma, None, 1e-12);
/// y.into_data().assert_approx_eq::<f32>(&[[[[0.6, 0.8], [0.0, 5.0]]]].into(), Default::default());
/// ```
#[track_caller]
pub fn head_norm<const D: usize>(
    x: Tensor<D>,
    kind: HeadNormKind,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Tensor<D> {
    or_panic(try_head_norm(x, kind, gamma, beta, epsilon))
}

/// [`head_norm`], with an error where that panics.
///
/// # Errors
/// [`Error::Heads`] if a parameter doesn't fit, [`Error::Rank`] if `x` has no axis of heads, [`Error::Quantized`], and
/// [`Error::Kernel`] for an epsilon that is negative or not finite.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{Error, HeadNormKind, try_head_norm};
///
/// let device = Device::flex();
/// let gamma = Tensor::<1>::ones([3], &device);
/// let x = Tensor::<3>::zeros([5, 2, 8], &device);
/// let error = try_head_norm(x, HeadNormKind::Rms, gamma, None, 1e-6).unwrap_err();
/// assert!(matches!(error, Error::Heads { len: 3, features: 8, all: 16, .. }));
/// ```
pub fn try_head_norm<const D: usize>(
    x: Tensor<D>,
    kind: HeadNormKind,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    let (params, shape) = ([gamma.into(), beta.into()], x.dims().to_vec());
    let &[.., heads, features] = &shape[..] else {
        return Err(Error::Rank { norm: "QK", needs: "[..., heads, features]", x: shape });
    };
    let all = heads * features;
    let by_head = heads > 0 && params.iter().flatten().all(|parameter| parameter.dims() == [all]);
    match misfit(&params, features).filter(|_| !by_head) {
        Some((name, len)) => Err(Error::Heads { name, len, features, all, x: shape }),
        // Of no heads there are no rows, which any number divides but 0.
        None => apply(Operator::new(Kind::Heads(Heads { kind, heads: heads.max(1) }), epsilon), x, params),
    }
}

/// Configuration of a [`QkNorm`].
///
/// ```
/// use layernorm_burn::QkNormConfig;
///
/// // 8 heads of queries, 2 of keys, each with a gain of its own.
/// let norm = QkNormConfig::new(64).with_heads(Some([8, 2])).init(&Default::default());
/// assert_eq!(norm.k_norm.gamma.unwrap().dims(), [128]);
/// ```
#[derive(Debug, Config)]
pub struct QkNormConfig {
    /// The number of features of a head: the length of the last axis of queries and keys.
    pub head_features: usize,
    /// By what heads are measured. Default: their root mean square
    #[config(default = "HeadNormKind::Rms")]
    pub kind: HeadNormKind,
    /// How many heads queries and keys have, if each is to have parameters of its own. Default: all share them
    pub heads: Option<[usize; 2]>,
    /// If a bias (beta) is added. Default: false
    #[config(default = false)]
    pub bias: bool,
    /// Added to the mean square or variance; for L2 norm the least length. Default: 1e-6
    #[config(default = 1e-6)]
    pub epsilon: f64,
}

impl QkNormConfig {
    /// A [`QkNorm`] with gamma 1 and beta 0.
    ///
    /// # Panics
    /// If `epsilon` is negative or not finite.
    #[track_caller]
    pub fn init(&self, device: &Device) -> QkNorm {
        expect_epsilon(self.epsilon);
        let of = |heads: usize| {
            let len = heads * self.head_features;
            HeadNorm {
                gamma: Some(Initializer::Ones.init([len], device)),
                beta: self.bias.then(|| Initializer::Zeros.init([len], device)),
                kind: self.kind,
                epsilon: self.epsilon,
            }
        };
        let [q, k] = self.heads.unwrap_or([1; 2]);
        QkNorm { q_norm: of(q), k_norm: of(k) }
    }
}

/// QK norm as a module: [`head_norm`] of queries and of keys, with parameters that learn.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::QkNormConfig;
///
/// let device = Device::flex();
/// let norm = QkNormConfig::new(16).init(&device);
/// let (q, k) = (Tensor::<4>::ones([1, 5, 8, 16], &device), Tensor::<4>::ones([1, 5, 2, 16], &device));
/// let (q, k) = norm.forward(q, k);
/// assert_eq!((q.dims(), k.swap_dims(1, 2).dims()), ([1, 5, 8, 16], [1, 2, 5, 16]));
/// ```
#[derive(Module, Debug)]
pub struct QkNorm {
    /// The norm of queries.
    pub q_norm: HeadNorm,
    /// The norm of keys.
    pub k_norm: HeadNorm,
}

/// The norm of the heads of queries or of keys, see [`QkNorm`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::QkNormConfig;
///
/// let device = Device::flex();
/// let norm = QkNormConfig::new(16).init(&device).q_norm;
/// assert_eq!(norm.forward(Tensor::<3>::ones([5, 8, 16], &device)).dims(), [5, 8, 16]);
/// ```
#[derive(Module, Debug)]
pub struct HeadNorm {
    /// The learnable weight (scale).
    pub gamma: Option<Param<Tensor<1>>>,
    /// The learnable bias (optional).
    pub beta: Option<Param<Tensor<1>>>,
    #[module(skip)]
    kind: HeadNormKind,
    /// Added to the mean square or variance; for L2 norm the least length.
    pub epsilon: f64,
}

impl QkNorm {
    /// The norms of `q` and `k`.
    ///
    /// # Shapes
    /// - q, k, and the outputs: `[..., heads, head_features]`; q and k may differ in the number of heads
    ///
    /// # Panics
    /// Where [`QkNorm::try_forward`] gives an error, with its message.
    #[track_caller]
    pub fn forward<const D: usize>(&self, q: Tensor<D>, k: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
        or_panic(self.try_forward(q, k))
    }

    /// [`QkNorm::forward`], with an error where that panics.
    ///
    /// # Errors
    /// As [`try_head_norm`].
    pub fn try_forward<const D: usize>(
        &self,
        q: Tensor<D>,
        k: Tensor<D>,
    ) -> Result<(Tensor<D>, Tensor<D>), Error> {
        Ok((self.q_norm.try_forward(q)?, self.k_norm.try_forward(k)?))
    }
}

impl HeadNorm {
    /// The norm of each head of `input`, `[..., heads, head_features]`.
    ///
    /// # Panics
    /// Where [`HeadNorm::try_forward`] gives an error, with its message.
    #[track_caller]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        or_panic(self.try_forward(input))
    }

    /// [`HeadNorm::forward`], with an error where that panics.
    ///
    /// # Errors
    /// As [`try_head_norm`].
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        let [gamma, beta] = [&self.gamma, &self.beta].map(|p| p.as_ref().map(|p| p.val()));
        try_head_norm(input, self.kind, gamma, beta, self.epsilon)
    }
}

/// The kernels of [`layernorm::qk_norm`], which scale and L2 norm are, too. Nothing is saved: a backward pass takes the
/// statistics of a row, which it reads anyway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) kind: HeadNormKind,
    /// Heads of a token, which follow each other.
    pub(crate) heads: usize,
}

impl Heads {
    fn params<'a, P>(self, Params { weight, bias, eps }: Params<'a, P>) -> QkParams<'a, P> {
        let norm = match self.kind {
            HeadNormKind::Rms => layernorm::HeadNorm::Rms,
            HeadNormKind::Layer => layernorm::HeadNorm::Layer,
            HeadNormKind::L2 => layernorm::HeadNorm::L2,
        };
        QkParams { norm, heads: self.heads, weight, bias, eps }
    }

    /// x_hat from Burn's operations.
    pub(crate) fn x_hat<const D: usize>(self, x: Tensor<D>, eps: f64) -> Tensor<D> {
        match self.kind {
            HeadNormKind::Rms => Rms { first: None }.x_hat(x, eps),
            HeadNormKind::Layer => layer_norm::x_hat(x, eps),
            HeadNormKind::L2 => x.clone() * reciprocal_length(x.square().sum_dim(D - 1), eps),
        }
    }
}

/// `1 / max(|x|, epsilon)` of the sum of the squares of x, and 0 where that is 1 / 0.
pub(crate) fn reciprocal_length<const D: usize>(squares: Tensor<D>, epsilon: f64) -> Tensor<D> {
    // Before the root, because its derivative at 0 would make NaN of a gradient that is masked only after it.
    let short = squares.clone().lower_equal_elem(epsilon * epsilon);
    let length = squares.mask_fill(short.clone(), 1.0).sqrt();
    length.recip().mask_fill(short, if epsilon > 0.0 { epsilon.recip() } else { 0.0 })
}

impl<E: Element, P: Companion<E>> Kernels<E, P> for Heads {
    fn row(&self, shape: &[usize]) -> usize {
        last(shape)
    }

    fn saved(&self, _: &[usize]) -> usize {
        0
    }

    fn forward(&self, call: Forward<'_, E, P>) -> Result<(), layernorm::Error> {
        let Forward { shape, x, params, run, .. } = call;
        let params = self.params(params);
        match x.rows(last(shape))? {
            SourceRows::Apart(x, y) => layernorm::qk_norm(x, params, y, run),
            SourceRows::InPlace(x) => layernorm::qk_norm_in_place(x, params, run),
        }
    }

    fn backward(&self, call: Backward<'_, E, P>) -> Result<(), layernorm::Error> {
        let Backward { shape, x, dy, params, gradients, run, .. } = call;
        let (params, of_params, row) = (self.params(params), wanted(gradients), last(shape));
        let x = x.rows(row)?;
        match dy.rows(row)? {
            UpstreamRows::Apart(dy, dx) => {
                let gradients = Gradients { dx, params: of_params };
                layernorm::qk_norm_backward(x, dy, params, gradients, run)
            }
            UpstreamRows::InPlace(dy) => layernorm::qk_norm_backward_in_place(x, dy, params, of_params, run),
        }
    }
}
