//! A picture is normalized again and again while its neighbours come and go.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use crate::data::Images;
use crate::models::norm::{Norm, NormKind};
use crate::report::model::Measured;
use crate::rng::{Purpose, Rng};

/// One method with one seed: a picture, and its neighbours.
pub struct Exchange<'a> {
    images: &'a Images,
    trials: usize,
    training: Norm,
    device: Device,
    rng: Rng,
    picture: usize,
    /// The picture normalized without neighbours.
    alone: Vec<f32>,
}

impl<'a> Exchange<'a> {
    /// A picture of `images`, to meet `trials` pairs of batches.
    pub fn new(images: &'a Images, trials: usize, kind: NormKind, seed: u64) -> Self {
        let mut rng = Rng::new(seed, Purpose::Neighbours, 0);
        let picture = rng.below(u32::try_from(images.len()).expect("few pictures")) as usize;
        let device = Device::flex().autodiff();
        let training = Norm::new(kind, images.size(), &device);
        let alone = normalized(&training, &device, images, &[picture], 0);
        Self { images, trials, training, device, rng, picture, alone }
    }

    /// Exchanges the neighbours in batches of this size.
    pub fn at(&mut self, batch: usize, measured: &mut Measured) {
        let mut total = 0.0;
        for _ in 0..self.trials {
            let [before, _] = self.in_company(batch);
            let [after, inference] = self.in_company(batch);
            total += root_mean_square(before.iter().zip(&after).map(|(a, b)| f64::from(a - b)));
            for (name, count) in [
                ("differ from alone", differing(&before, &self.alone) + differing(&after, &self.alone)),
                ("compared with alone", 2 * after.len()),
                ("differ in inference", differing(&after, &inference)),
                ("compared with inference", after.len()),
            ] {
                measured.add(name, count as f64);
            }
        }
        measured.point("moved", batch as f64, total / self.trials as f64);
    }

    /// The picture after normalization in a batch with random others, at a random place, in training and inference.
    fn in_company(&mut self, batch: usize) -> [Vec<f32>; 2] {
        let images = self.images;
        let count = u32::try_from(images.len()).expect("few pictures");
        let mut members: Vec<usize> = (0..batch).map(|_| self.rng.below(count) as usize).collect();
        let place = self.rng.below(u32::try_from(batch).expect("a small batch")) as usize;
        members[place] = self.picture;
        let training = normalized(&self.training, &self.device, images, &members, place);
        // Inference after training, so that batch norm's running statistics have seen this batch.
        let inference =
            normalized(&self.training.valid(), &self.device.clone().inner(), images, &members, place);
        [training, inference]
    }
}

/// Row `place` of the batch, normalized on the device that says whether this is training or inference.
pub fn normalized(
    norm: &Norm,
    device: &Device,
    images: &Images,
    members: &[usize],
    place: usize,
) -> Vec<f32> {
    let pixels: Vec<f32> =
        members.iter().flat_map(|&index| images.picture(index)).map(|&p| f32::from(p) / 255.0).collect();
    let x = Tensor::<2>::from_data(TensorData::new(pixels, [members.len(), images.size()]), device);
    let y = norm.forward(x).into_data().try_into_vec::<f32>().expect("f32 in, f32 out");
    y[place * images.size()..][..images.size()].to_vec()
}

/// How many numbers differ in any bit.
pub fn differing(a: &[f32], b: &[f32]) -> usize {
    a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count()
}

fn root_mean_square(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    (values.map(|v| v * v).sum::<f64>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_compared_not_values() {
        assert_eq!(differing(&[0.0, 1.0, 2.0], &[-0.0, 1.0, 2.0]), 1);
    }

    #[test]
    fn root_mean_square_of_three_and_four() {
        assert!((root_mean_square([3.0, -4.0].into_iter()) - 12.5f64.sqrt()).abs() < 1e-12);
    }
}
