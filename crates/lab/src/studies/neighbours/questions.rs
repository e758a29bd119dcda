//! Three questions to a method, answered by comparing bits: does training differ from inference, do the neighbours
//! matter, do earlier batches?

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use layernorm_burn::{NormConfig, weight_norm};

use super::exchange::differing;
use crate::data::Images;
use crate::models::norm::{EPSILON, Norm, NormKind};
use crate::report::model::Measured;
use crate::rng::{Purpose, Rng};

/// A method of the family.
#[derive(Clone, Copy, Debug)]
pub enum Method {
    /// Of a picture's numbers as features.
    Features(NormKind),
    /// The scale alone, of a picture's numbers as features.
    Scale,
    /// By a sixteenth of a picture's numbers.
    Partial,
    /// Of a picture's lines as channels, in groups of seven.
    Group,
    /// Of a picture's lines as channels, each for itself.
    Instance,
    /// Of the weights of a linear map.
    Weight,
}

/// A method at work.
#[derive(Module, Debug)]
enum Subject {
    Features(Norm),
    Rows(layernorm_burn::Norm),
    Lines(layernorm_burn::Norm),
    Weight(WeightNormed),
}

/// A linear map with weight norm.
#[derive(Module, Debug)]
struct WeightNormed {
    v: Param<Tensor<2>>,
    gain: Param<Tensor<1>>,
}

/// What is asked, as keys of the measurements.
pub const QUESTIONS: [&str; 3] = ["branch", "neighbours", "state"];
const BATCH: usize = 32;

/// Asks all three.
pub fn ask(method: Method, images: &Images, seed: u64, measured: &mut Measured) {
    let device = Device::flex().autodiff();
    let subject = Subject::new(method, images, seed, &device);
    let mut rng = Rng::new(seed, Purpose::Study("neighbours"), 0);
    let count = u32::try_from(images.len()).expect("few pictures");
    // The first picture of each batch is the same one.
    let batches: [Vec<usize>; 2] = std::array::from_fn(|_| {
        std::iter::once(0).chain((1..BATCH).map(|_| rng.below(count) as usize)).collect()
    });
    let inference = || subject.valid().first(images, &batches[0], &device.clone().inner());
    let before = inference();
    let trained = subject.first(images, &batches[0], &device);
    let after = inference();
    let others = subject.first(images, &batches[1], &device);
    let answers = [(&trained, &after), (&trained, &others), (&before, &after)];
    for (question, (one, other)) in QUESTIONS.iter().zip(answers) {
        let yes = f64::from(u8::from(differing(one, other) > 0));
        measured.set(question, yes);
        measured.add("yes", yes);
    }
}

impl Subject {
    fn new(method: Method, images: &Images, seed: u64, device: &Device) -> Self {
        let rows = |config: NormConfig| config.with_epsilon(EPSILON).init(images.size(), device);
        let lines = |config: NormConfig| config.with_epsilon(EPSILON).init(images.rows, device);
        match method {
            Method::Features(kind) => Self::Features(Norm::new(kind, images.size(), device)),
            Method::Scale => Self::Rows(rows(NormConfig::scale())),
            Method::Partial => Self::Rows(rows(NormConfig::partial_rms(1.0 / 16.0))),
            Method::Group => Self::Lines(lines(NormConfig::group(images.rows / 7))),
            Method::Instance => Self::Lines(lines(NormConfig::instance())),
            Method::Weight => {
                const UNITS: usize = 64;
                let mut rng = Rng::new(seed, Purpose::Weights, 0);
                let v = (0..images.size() * UNITS).map(|_| rng.bell()).collect();
                Self::Weight(WeightNormed {
                    v: Param::from_data(TensorData::new::<f32, _>(v, [images.size(), UNITS]), device),
                    gain: Param::from_data(TensorData::new(vec![1f32; UNITS], [UNITS]), device),
                })
            }
        }
    }

    /// What becomes of the first picture of a batch.
    fn first(&self, images: &Images, members: &[usize], device: &Device) -> Vec<f32> {
        let pixels: Vec<f32> =
            members.iter().flat_map(|&index| images.picture(index)).map(|&p| f32::from(p) / 255.0).collect();
        let x = Tensor::<2>::from_data(TensorData::new(pixels, [members.len(), images.size()]), device);
        let shape = [members.len(), images.rows, images.columns];
        let y = match self {
            Self::Features(norm) => norm.forward(x),
            Self::Rows(norm) => norm.forward(x),
            Self::Lines(norm) => norm.forward(x.reshape(shape)).flatten(1, 2),
            Self::Weight(WeightNormed { v, gain }) => x.matmul(weight_norm(v.val(), gain.val())),
        };
        let y = y.narrow(0, 0, 1).into_data();
        y.try_into_vec().expect("f32 in, f32 out")
    }
}
