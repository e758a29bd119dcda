// Three models, written once. `mod.rs` includes this file below a `use` of candle's norms, and below one of ours.

use candle_core::{DType, Module, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, VarBuilder, conv2d, linear, linear_no_bias};

/// Heads before time: `[batch, heads, time, features / heads]`.
fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, time, features) = x.dims3()?;
    x.reshape((batch, time, heads, features / heads))?.transpose(1, 2)
}

/// softmax(q k' / sqrt(features) + mask) v, heads joined again.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let [q, k, v] = [q, k, v].map(Tensor::contiguous);
    let (q, k) = (q?, k?);
    let mut logits = (q.matmul(&k.t()?)? / (q.dim(3)? as f64).sqrt())?;
    if let Some(mask) = mask {
        logits = logits.broadcast_add(mask)?;
    }
    // Of candle's functions, those that are differentiable: `softmax_last_dim` and `rope` are not.
    let joined = candle_nn::ops::softmax(&logits, 3)?.matmul(&v?)?.transpose(1, 2)?;
    joined.flatten_from(2)
}

/// A layer of BERT's encoder (Devlin et al. 2019): attention and two linear maps, each with the norm after the sum.
pub(super) struct BertLayer {
    heads: usize,
    qkv: [Linear; 3],
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
}

impl BertLayer {
    pub(super) fn new(size: usize, heads: usize, vb: VarBuilder) -> Result<Self> {
        let attention = vb.pp("attention");
        let qkv = |name| linear(size, size, attention.pp("self").pp(name));
        Ok(Self {
            heads,
            qkv: [qkv("query")?, qkv("key")?, qkv("value")?],
            output: linear(size, size, attention.pp("output.dense"))?,
            attention_norm: layer_norm(size, 1e-12, attention.pp("output.LayerNorm"))?,
            up: linear(size, 4 * size, vb.pp("intermediate.dense"))?,
            down: linear(4 * size, size, vb.pp("output.dense"))?,
            norm: layer_norm(size, LayerNormConfig::from(1e-12), vb.pp("output.LayerNorm"))?,
        })
    }
}

impl Module for BertLayer {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [q, k, v] = [0, 1, 2].map(|i| split_heads(&self.qkv[i].forward(x)?, self.heads));
        let attended = self.output.forward(&attend(&q?, &k?, &v?, None)?)?;
        let x = self.attention_norm.forward(&(attended + x)?)?;
        let more = self.down.forward(&self.up.forward(&x)?.gelu_erf()?)?;
        self.norm.forward(&(more + x)?)
    }
}

/// A block of LLaMA (Touvron et al. 2023): RMS norm before causal attention with rotations, and before a gated map.
pub(super) struct LlamaBlock {
    heads: usize,
    input_norm: RmsNorm,
    qkvo: [Linear; 4],
    post_attention_norm: RmsNorm,
    gate_up_down: [Linear; 3],
}

impl LlamaBlock {
    pub(super) fn new(size: usize, heads: usize, vb: VarBuilder) -> Result<Self> {
        let (attention, mlp) = (vb.pp("self_attn"), vb.pp("mlp"));
        let square = |name| linear_no_bias(size, size, attention.pp(name));
        Ok(Self {
            heads,
            input_norm: rms_norm(size, 1e-5, vb.pp("input_layernorm"))?,
            qkvo: [square("q_proj")?, square("k_proj")?, square("v_proj")?, square("o_proj")?],
            post_attention_norm: rms_norm(size, 1e-5, vb.pp("post_attention_layernorm"))?,
            gate_up_down: [
                linear_no_bias(size, 3 * size, mlp.pp("gate_proj"))?,
                linear_no_bias(size, 3 * size, mlp.pp("up_proj"))?,
                linear_no_bias(3 * size, size, mlp.pp("down_proj"))?,
            ],
        })
    }
}

impl Module for LlamaBlock {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (time, half) = (x.dim(1)?, x.dim(2)? / self.heads / 2);
        let positions = Tensor::arange(0u32, u32::try_from(time)?, x.device())?.to_dtype(DType::F32)?;
        let speeds: Vec<f32> = (0..half).map(|i| 10000f32.powf(-(i as f32) / half as f32)).collect();
        let angles = positions.unsqueeze(1)?.matmul(&Tensor::new(speeds, x.device())?.unsqueeze(0)?)?;
        let (cos, sin) = (angles.cos()?, angles.sin()?);

        let h = self.input_norm.forward(x)?;
        let [q, k, v] = [0, 1, 2].map(|i| split_heads(&self.qkvo[i].forward(&h)?, self.heads));
        let rotate = |x: Tensor| candle_nn::rotary_emb::rope_slow(&x.contiguous()?, &cos, &sin);
        let mask: Vec<f32> =
            (0..time * time).map(|i| if i % time > i / time { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (time, time), x.device())?;
        let attended = attend(&rotate(q?)?, &rotate(k?)?, &v?, Some(&mask))?;
        let x = (x + self.qkvo[3].forward(&attended)?)?;

        let h = self.post_attention_norm.forward(&x)?;
        let [gate, up, down] = &self.gate_up_down;
        &x + down.forward(&(gate.forward(&h)?.silu()? * up.forward(&h)?)?)?
    }
}

/// A residual block of a diffusion model's U-net (Ho et al. 2020): group norm, SiLU and a convolution, twice, with the
/// time step's embedding added between.
pub(super) struct DiffusionBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Conv2d,
}

impl DiffusionBlock {
    pub(super) fn new(from: usize, to: usize, time: usize, vb: VarBuilder) -> Result<Self> {
        let three = Conv2dConfig { padding: 1, ..Default::default() };
        Ok(Self {
            norm1: group_norm(4, from, 1e-6, vb.pp("norm1"))?,
            conv1: conv2d(from, to, 3, three, vb.pp("conv1"))?,
            time: linear(time, to, vb.pp("time_emb_proj"))?,
            norm2: group_norm(4, to, 1e-6, vb.pp("norm2"))?,
            conv2: conv2d(to, to, 3, three, vb.pp("conv2"))?,
            shortcut: conv2d(from, to, 1, Default::default(), vb.pp("conv_shortcut"))?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let h = self.conv1.forward(&self.norm1.forward(x)?.silu()?)?;
        let time = self.time.forward(&time.silu()?)?.unsqueeze(2)?.unsqueeze(3)?;
        let h = self.norm2.forward(&h.broadcast_add(&time)?)?.silu()?;
        self.conv2.forward(&h)? + self.shortcut.forward(x)?
    }
}
