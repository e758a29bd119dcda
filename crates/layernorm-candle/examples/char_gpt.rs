//! A small GPT over characters, with RMS norm before each part, QK norm, and a layer norm at the end, trained on a short
//! text, of which it then writes some: `cargo run --release -p layernorm-candle --example char_gpt`, or with
//! `-- --data FILE --steps 2000 --letters 1000`.
//!
//! It runs on one thread, in some seconds, unless RAYON_NUM_THREADS says otherwise: at products as small as these, several
//! threads of candle's wait for each other.

use candle_core::{D, DType, Device, Module, Result, Tensor};
use candle_nn::{
    AdamW, Embedding, Linear, Optimizer, ParamsAdamW, VarBuilder, VarMap, embedding, linear_no_bias,
};
use layernorm_candle::{LayerNorm, QkNorm, RmsNorm, layer_norm, qk_norm, rms_norm};

/// Two nursery rhymes, long out of copyright.
const TEXT: &str = "\
This is the house that Jack built.
This is the malt that lay in the house that Jack built.
This is the rat that ate the malt that lay in the house that Jack built.
This is the cat that killed the rat that ate the malt that lay in the house that Jack built.
This is the dog that worried the cat that killed the rat that ate the malt that lay in the house that Jack built.
This is the cow with the crumpled horn that tossed the dog that worried the cat that killed the rat that ate the malt \
that lay in the house that Jack built.
Twinkle, twinkle, little star, how I wonder what you are!
Up above the world so high, like a diamond in the sky.
When the blazing sun is gone, when he nothing shines upon,
then you show your little light, twinkle, twinkle, all the night.
";

const SIZE: usize = 64;
const HEADS: usize = 2;
const LAYERS: usize = 2;
const CONTEXT: usize = 64;
const BATCH: usize = 6;

/// x + attention(norm(x)), then x + map(norm(x)).
struct Block {
    attention_norm: RmsNorm,
    qkv: Linear,
    qk_norm: QkNorm,
    output: Linear,
    map_norm: RmsNorm,
    up: Linear,
    down: Linear,
}

impl Block {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            attention_norm: rms_norm(SIZE, 1e-6, vb.pp("attention_norm"))?,
            qkv: linear_no_bias(SIZE, 3 * SIZE, vb.pp("qkv"))?,
            qk_norm: qk_norm(SIZE / HEADS, 1e-6, vb.clone())?,
            output: linear_no_bias(SIZE, SIZE, vb.pp("output"))?,
            map_norm: rms_norm(SIZE, 1e-6, vb.pp("map_norm"))?,
            up: linear_no_bias(SIZE, 4 * SIZE, vb.pp("up"))?,
            down: linear_no_bias(4 * SIZE, SIZE, vb.pp("down"))?,
        })
    }

    fn attend(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (batch, time, _) = x.dims3()?;
        // Queries, keys and values of all heads in one buffer; the norms read theirs where they lie.
        let qkv = self.qkv.forward(x)?.reshape((batch, time, 3 * HEADS, SIZE / HEADS))?;
        let part = |index| qkv.narrow(2, index * HEADS, HEADS);
        let (q, k) = self.qk_norm.forward(&part(0)?, &part(1)?)?;
        let [q, k, v] = [q, k, part(2)?].map(|heads| heads.transpose(1, 2)?.contiguous());
        let (q, k) = (q?, k?);
        let logits = (q.matmul(&k.t()?)? / ((SIZE / HEADS) as f64).sqrt())?;
        let shares = candle_nn::ops::softmax(&logits.broadcast_add(mask)?, D::Minus1)?;
        let mixed = shares.matmul(&v?)?.transpose(1, 2)?.flatten_from(2)?;
        self.output.forward(&mixed)
    }

    fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let attended = self.attend(&self.attention_norm.forward(x)?, mask)?;
        let (normed, x) = self.map_norm.forward_add(&attended, x)?;
        x + self.down.forward(&self.up.forward(&normed)?.relu()?)?
    }
}

struct Gpt {
    tokens: Embedding,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    mask: Tensor,
}

impl Gpt {
    fn new(letters: usize, vb: VarBuilder) -> Result<Self> {
        let blocks = (0..LAYERS).map(|index| Block::new(vb.pp("blocks").pp(index)));
        let mask = (0..CONTEXT * CONTEXT).map(|i| {
            let is_later = i % CONTEXT > i / CONTEXT;
            if is_later { f32::NEG_INFINITY } else { 0.0 }
        });
        let small = candle_nn::Init::Randn { mean: 0.0, stdev: 0.02 };
        Ok(Self {
            tokens: embedding(letters, SIZE, vb.pp("tokens"))?,
            positions: vb.get_with_hints((CONTEXT, SIZE), "positions", small)?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: layer_norm(SIZE, 1e-5, vb.pp("norm"))?,
            head: linear_no_bias(SIZE, letters, vb.pp("head"))?,
            mask: Tensor::from_iter(mask, vb.device())?.reshape((CONTEXT, CONTEXT))?,
        })
    }

    /// Logits of the next letter after each of `[batch, time]`.
    fn forward(&self, letters: &Tensor) -> Result<Tensor> {
        let time = letters.dim(1)?;
        let mask = self.mask.narrow(0, 0, time)?.narrow(1, 0, time)?;
        let mut x = self.tokens.forward(letters)?.broadcast_add(&self.positions.narrow(0, 0, time)?)?;
        for block in &self.blocks {
            x = block.forward(&x, &mask)?;
        }
        self.head.forward(&self.norm.forward(&x)?)
    }
}

/// Numbers that depend on the start alone (splitmix64), so that a run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In 0..1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In 0..`below`, which is far from 2^64.
    fn index(&mut self, below: usize) -> Result<usize> {
        Ok(usize::try_from(self.next() % below as u64)?)
    }
}

/// What the command line asks for.
struct Asked {
    text: String,
    steps: usize,
    letters: usize,
}

fn asked() -> Result<Asked> {
    let mut asked = Asked { text: TEXT.to_owned(), steps: 700, letters: 200 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| candle_core::Error::msg(format!("{word} needs a value")))?;
        match word.as_str() {
            "--data" => asked.text = std::fs::read_to_string(value)?,
            "--steps" => asked.steps = value.parse()?,
            "--letters" => asked.letters = value.parse()?,
            _ => {
                let usage = "usage: char_gpt [--data FILE] [--steps NUMBER] [--letters NUMBER]";
                return Err(candle_core::Error::msg(usage));
            }
        }
    }
    Ok(asked)
}

fn main() -> Result<()> {
    let Asked { text, steps, letters } = asked()?;
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        // SAFETY: no other thread has been started yet. Candle will read it once.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    }
    let mut alphabet: Vec<char> = text.chars().collect();
    alphabet.sort_unstable();
    alphabet.dedup();
    let number = |letter| Ok(u32::try_from(alphabet.binary_search(&letter).unwrap_or(0))?);
    let numbers = text.chars().map(number).collect::<Result<Vec<u32>>>()?;
    if numbers.len() < CONTEXT + 2 {
        return Err(candle_core::Error::msg(format!("the text needs more than {} letters", CONTEXT + 1)));
    }

    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let model = Gpt::new(alphabet.len(), vb)?;
    let count: usize = variables.all_vars().iter().map(|var| var.elem_count()).sum();
    println!(
        "{} letters of text, {} different, {count} parameters, {steps} steps",
        numbers.len(),
        alphabet.len()
    );

    let params = ParamsAdamW { lr: 3e-3, weight_decay: 0.01, ..Default::default() };
    let mut optimizer = AdamW::new(variables.all_vars(), params)?;
    let mut random = Random(1);
    for step in 1..=steps {
        optimizer.set_learning_rate(3e-3 * (1.0 - 0.95 * step as f64 / steps as f64));
        let starts: Vec<usize> =
            (0..BATCH).map(|_| random.index(numbers.len() - CONTEXT)).collect::<Result<_>>()?;
        let batch = |shift: usize| {
            let letters: Vec<u32> =
                starts.iter().flat_map(|start| &numbers[start + shift..][..CONTEXT]).copied().collect();
            Tensor::from_vec(letters, (BATCH, CONTEXT), &Device::Cpu)
        };
        let logits = model.forward(&batch(0)?)?.flatten_to(1)?;
        let loss = candle_nn::loss::cross_entropy(&logits, &batch(1)?.flatten_all()?)?;
        optimizer.backward_step(&loss)?;
        if step % 100 == 0 || step == 1 {
            println!("step {step:>5}: {:.3} nats a letter", loss.to_scalar::<f32>()?);
        }
    }

    let mut written = "This is".chars().map(number).collect::<Result<Vec<u32>>>()?;
    for _ in 0..letters {
        let context = &written[written.len().saturating_sub(CONTEXT)..];
        let logits = model.forward(&Tensor::new(context, &Device::Cpu)?.unsqueeze(0)?)?;
        let logits = (logits.get(0)?.get(context.len() - 1)? / 0.5)?;
        let shares = candle_nn::ops::softmax(&logits, 0)?.to_vec1::<f32>()?;
        let mut rest = random.share();
        let chosen = shares.iter().position(|share| {
            rest -= f64::from(*share);
            rest < 0.0
        });
        written.push(u32::try_from(chosen.unwrap_or(0))?);
    }
    println!("\n{}", written.iter().map(|&number| alphabet[number as usize]).collect::<String>());
    Ok(())
}
