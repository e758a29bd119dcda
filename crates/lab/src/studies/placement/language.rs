//! A small language to learn: what comes next follows from the last two symbols, three times out of four.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::rng::Rng;

/// Different symbols.
pub const SYMBOLS: u32 = 8;
/// One symbol in so many is drawn at random.
const NOISE: u32 = 4;

/// A table of what follows two symbols.
#[derive(Clone, Debug)]
pub struct Language {
    follows: Vec<u32>,
}

impl Language {
    /// A language of its own for each stream of random numbers.
    pub fn new(rng: &mut Rng) -> Self {
        Self { follows: (0..SYMBOLS * SYMBOLS).map(|_| rng.below(SYMBOLS)).collect() }
    }

    /// A text of `length` symbols.
    pub fn text(&self, length: usize, rng: &mut Rng) -> Vec<u32> {
        let mut text: Vec<u32> = Vec::with_capacity(length);
        for at in 0..length {
            let next = match text[..] {
                [.., a, b] if rng.below(NOISE) != 0 => self.follows[(a * SYMBOLS + b) as usize],
                _ => rng.below(SYMBOLS),
            };
            debug_assert_eq!(text.len(), at, "one symbol at a time");
            text.push(next);
        }
        text
    }

    /// Texts as a batch: what is read, and what comes next, `[batch, length]` each.
    pub fn batch(&self, [batch, length]: [usize; 2], rng: &mut Rng, device: &Device) -> [Tensor<2, Int>; 2] {
        let texts: Vec<i32> = (0..batch)
            .flat_map(|_| self.text(length + 1, rng))
            .map(|symbol| i32::try_from(symbol).expect("a few symbols"))
            .collect();
        let texts = Tensor::<2, Int>::from_data(TensorData::new(texts, [batch, length + 1]), device);
        [texts.clone().slice([0..batch, 0..length]), texts.slice([0..batch, 1..length + 1])]
    }
}

/// The loss of one who knows the language, in nats a symbol.
pub fn floor() -> f64 {
    let (symbols, noise) = (f64::from(SYMBOLS), 1.0 / f64::from(NOISE));
    let (other, likely) = (noise / symbols, 1.0 - noise + noise / symbols);
    -(likely * likely.ln() + (symbols - 1.0) * other * other.ln())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    #[test]
    fn the_floor_is_the_entropy_of_the_texts() {
        let mut rng = Rng::new(1, Purpose::Study("placement"), 0);
        let language = Language::new(&mut rng);
        let text = language.text(100_000, &mut rng);
        let followed =
            |three: &&[u32]| three[2] == language.follows[(three[0] * SYMBOLS + three[1]) as usize];
        let share = text.windows(3).filter(followed).count() as f64 / text.len() as f64;
        let likely = 0.75 + 0.25 / 8.0;
        assert!((share - likely).abs() < 0.01, "{share}");
        let other: f64 = 0.25 / 8.0;
        assert!((floor() + likely * likely.ln() + 7.0 * other * other.ln()).abs() < 1e-12);
    }

    #[test]
    fn what_comes_next_is_one_further() {
        let mut rng = Rng::new(2, Purpose::Study("placement"), 0);
        let [read, next] = Language::new(&mut rng).batch([2, 5], &mut rng, &Device::flex());
        let [read, next] = [read, next].map(|t| t.into_data().try_into_vec::<i32>().unwrap());
        assert_eq!((&read[1..5], &read[6..10]), (&next[..4], &next[5..9]));
    }
}
