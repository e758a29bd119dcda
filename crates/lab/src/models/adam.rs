//! Burn's Adam, kept away from subnormal numbers.
//!
//! A weight whose gradient stays 0, behind a dead ReLU or an empty pixel, keeps moments that shrink by a constant
//! factor each step until they are subnormal, where a processor's arithmetic is up to a hundred times slower: without
//! care the unnormalized network trains at a fifth of its speed. Moments far too small to move any weight are
//! therefore set to 0 now and then, by adding and subtracting a constant that swallows them.

use burn::optim::{Adam, AdamConfig, AdamState, LearningRate, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};

/// Steps between two cleanings; the first moment shrinks to a fifth meanwhile.
const BETWEEN: usize = 16;
/// Swallows first moments below 4e-33: over Adam's epsilon of 1e-8, a step of 4e-25 of the rate.
const FIRST: f32 = 1e-25;
/// Swallows second moments below 4e-35: their root is 1e-9 of Adam's epsilon.
const SECOND: f32 = 1e-27;

#[derive(Clone)]
struct CleanAdam(Adam);

/// Adam with the paper's constants: beta 0.9 and 0.999, epsilon 1e-8.
pub fn adam() -> ModuleOptimizer {
    ModuleOptimizer::from(CleanAdam(AdamConfig::new().with_epsilon(1e-8).build()))
}

impl Optimizer for CleanAdam {
    type State<const D: usize> = AdamState<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        tensor: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let (tensor, mut state) = self.0.step(rate, tensor, gradient, state);
        if let Some(AdamState { momentum }) = &mut state
            && momentum.time % BETWEEN == 0
        {
            momentum.moment_1 = swallow(momentum.moment_1.clone(), FIRST);
            momentum.moment_2 = swallow(momentum.moment_2.clone(), SECOND);
        }
        (tensor, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        Adam::to_device(state, device)
    }
}

fn swallow<const D: usize>(moment: Tensor<D>, constant: f32) -> Tensor<D> {
    moment.add_scalar(constant).sub_scalar(constant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_moments_vanish_and_others_stay() {
        let moments = [1e-40, -3e-34, 1e-20, -1e-3, 0.5];
        let clean = swallow(Tensor::<1>::from_floats(moments, &Device::flex()), FIRST);
        let clean = clean.into_data().try_into_vec::<f32>().unwrap();
        assert_eq!(clean[..2], [0.0, 0.0]);
        for (now, before) in clean[2..].iter().zip(&moments[2..]) {
            assert!((now / before - 1.0).abs() < 2e-5, "{before} became {now}");
        }
    }
}
