//! One update of any model: the step that every training is made of.

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;

/// A model with its optimizer.
pub struct Fit<M> {
    /// The model as it stands.
    pub model: M,
    /// The optimizer with what it remembers.
    pub optimizer: ModuleOptimizer,
}

impl<M: Module> Fit<M> {
    /// A model at its beginning.
    pub fn new(model: M, optimizer: ModuleOptimizer) -> Self {
        Self { model, optimizer }
    }

    /// Goes one step down the gradient of `loss`, and gives the loss before it.
    pub fn update(&mut self, rate: f64, loss: impl FnOnce(&M) -> Tensor<1>) -> f64 {
        let loss = loss(&self.model);
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &self.model);
        self.model = self.optimizer.step(rate, self.model.clone(), gradients);
        value
    }

    /// The losses of so many updates, each at its rate and on its data.
    pub fn train(
        &mut self,
        updates: usize,
        rate: impl Fn(usize) -> f64,
        loss: impl Fn(&M, usize) -> Tensor<1>,
    ) -> Vec<f64> {
        (0..updates).map(|update| self.update(rate(update), |model| loss(model, update))).collect()
    }
}

/// Updates and mean loss of spans of equal length, `parts` of them where there are so many updates.
pub fn curve(losses: &[f64], parts: usize) -> Vec<[f64; 2]> {
    let span = losses.len().div_ceil(parts).max(1);
    let mean = |span: &[f64]| span.iter().sum::<f64>() / span.len() as f64;
    losses
        .chunks(span)
        .enumerate()
        .map(|(index, losses)| [(index * span + losses.len()) as f64, mean(losses)])
        .collect()
}

/// The mean loss of the last quarter. Worse than `guessing` counts as guessing: how far a training that has failed
/// got away says nothing.
pub fn late(losses: &[f64], guessing: f64) -> f64 {
    let last = &losses[losses.len() - losses.len().div_ceil(4)..];
    let bounded = |loss: &f64| if *loss < guessing { *loss } else { guessing };
    last.iter().map(bounded).sum::<f64>() / last.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_means_of_spans() {
        assert_eq!(curve(&[1.0, 3.0, 5.0, 7.0, 9.0], 3), [[2.0, 2.0], [4.0, 6.0], [5.0, 9.0]]);
        assert_eq!(curve(&[1.0, 3.0], 25), [[1.0, 1.0], [2.0, 3.0]]);
    }

    #[test]
    fn a_failed_training_counts_as_guessing() {
        assert_eq!(late(&[9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 2.0], 5.0), 1.5);
        assert_eq!(late(&[1.0, f64::NAN], 5.0), 5.0);
        assert_eq!(late(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1e30], 5.0), 3.0);
    }
}
