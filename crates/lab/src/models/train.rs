//! The loop that trains a classifier, as a [`Unit`]: it stops after any update and goes on to the same bits.

use burn::module::{Module, ModuleVisitor, Param};
use burn::store::ModuleRecord;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bytes, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::adam::adam;
use super::fit::Fit;
use super::mlp::{Mlp, MlpShape};
use crate::data::{Images, Split};
use crate::report::model::Measured;
use crate::report::number::{number, pairs};
use crate::rng::{Purpose, Rng};
use crate::study::{Error, Unit};

/// How to train.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The network.
    pub shape: MlpShape,
    /// Samples of an update.
    pub batch: usize,
    /// Passes over the training set.
    pub epochs: u64,
    /// Adam's learning rate.
    pub rate: f64,
    /// The training loss is averaged over this many spans of equal length.
    pub spans: u64,
    /// The test error is measured this many times, the last time at the end.
    pub tests: u64,
    /// Ticks of an update, for the progress bar.
    pub ticks: u64,
}

impl Recipe {
    /// Updates of an epoch: a last batch that isn't full is left out, as batch norm's statistics would differ in it.
    fn updates_per_epoch(&self, samples: usize) -> u64 {
        (samples / self.batch) as u64
    }

    /// Updates in all.
    pub fn updates(&self, samples: usize) -> u64 {
        self.epochs * self.updates_per_epoch(samples)
    }
}

/// Everything that changes during training besides weights and moments: what a checkpoint keeps as JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// Updates done.
    updates: u64,
    /// The sum of losses in the span under way.
    #[serde(deserialize_with = "number")]
    sum: f64,
    /// How many they are.
    count: u64,
    /// Updates and mean loss of the finished spans.
    #[serde(deserialize_with = "pairs")]
    losses: Vec<[f64; 2]>,
    /// Epochs and test error in per cent.
    #[serde(deserialize_with = "pairs")]
    errors: Vec<[f64; 2]>,
    /// Epochs and test loss.
    #[serde(deserialize_with = "pairs")]
    test_losses: Vec<[f64; 2]>,
}

/// A classifier in training.
pub struct Training<'a> {
    recipe: Recipe,
    data: &'a Split,
    seed: u64,
    device: Device,
    fit: Fit<Mlp>,
    progress: Progress,
    /// The epoch's order of samples, made again when needed.
    order: (u64, Vec<u32>),
}

/// Updates between two chances to stop.
const STRIDE: u64 = 8;
/// Samples of a test's batch.
const TEST_BATCH: usize = 500;

impl<'a> Training<'a> {
    /// A training from its beginning, or from a saved state.
    ///
    /// # Errors
    /// [`Error::State`] for bytes that are not a state of this recipe.
    pub fn new(recipe: Recipe, data: &'a Split, seed: u64, saved: Option<&[u8]>) -> Result<Self, Error> {
        let device = Device::flex().autodiff();
        let fit = Fit::new(Mlp::new(&recipe.shape, seed, &device), adam());
        let progress = Progress::default();
        let order = (u64::MAX, Vec::new());
        let fresh = Self { recipe, data, seed, device, fit, progress, order };
        match saved {
            None => Ok(fresh),
            Some(bytes) => {
                fresh.load(bytes).map_err(|reason| Error::State { unit: format!("seed {seed}"), reason })
            }
        }
    }

    /// The network as it stands.
    pub fn model(&self) -> &Mlp {
        &self.fit.model
    }

    fn load(mut self, saved: &[u8]) -> Result<Self, String> {
        let [progress, model, optimizer] = frames(saved).ok_or("cut short")?;
        self.progress = serde_json::from_slice(progress).map_err(|e| e.to_string())?;
        let record =
            ModuleRecord::from_bytes(Bytes::from_bytes_vec(model.to_vec())).map_err(|e| e.to_string())?;
        self.fit.model = self.fit.model.try_load_record(record).map_err(|e| e.to_string())?;
        self.fit.optimizer = self
            .fit
            .optimizer
            .from_bytes(Bytes::from_bytes_vec(optimizer.to_vec()))
            .map_err(|e| e.to_string())?;
        Ok(self)
    }

    fn updates(&self) -> u64 {
        self.recipe.updates(self.data.train.len())
    }

    /// One update by Adam on the next batch.
    fn update(&mut self) {
        let (x, labels) = self.next_batch();
        let loss = self.fit.update(self.recipe.rate, |model| nll(model.forward(x), labels));
        self.progress.updates += 1;
        self.progress.sum += loss;
        self.progress.count += 1;
        self.measure();
    }

    /// Samples in the epoch's order, which depends on the seed and the epoch alone.
    fn next_batch(&mut self) -> (Tensor<2>, Tensor<2, Int>) {
        let samples = self.data.train.len();
        let in_epoch = self.recipe.updates_per_epoch(samples);
        let (epoch, update) = (self.progress.updates / in_epoch, self.progress.updates % in_epoch);
        if self.order.0 != epoch {
            let count = u32::try_from(samples).expect("fewer samples than 2^32");
            let index = u32::try_from(epoch).expect("fewer epochs than 2^32");
            self.order = (epoch, Rng::new(self.seed, Purpose::Order, index).permutation(count));
        }
        let from = usize::try_from(update).expect("an index") * self.recipe.batch;
        let chosen: Vec<usize> =
            self.order.1[from..][..self.recipe.batch].iter().map(|&i| i as usize).collect();
        tensors(&self.data.train, &chosen, &self.device)
    }

    /// Ends a span of losses or tests, if it is time.
    fn measure(&mut self) {
        let (done, all) = (self.progress.updates, self.updates());
        if due(done, all, self.recipe.spans) {
            self.progress.losses.push([done as f64, self.progress.sum / self.progress.count as f64]);
            (self.progress.sum, self.progress.count) = (0.0, 0);
        }
        if due(done, all, self.recipe.tests) {
            let epochs = done as f64 / self.recipe.updates_per_epoch(self.data.train.len()) as f64;
            let (error, loss) = self.test();
            self.progress.errors.push([epochs, error]);
            self.progress.test_losses.push([epochs, loss]);
        }
    }

    /// Error in per cent and mean loss on the test set, in inference mode.
    fn test(&self) -> (f64, f64) {
        let (model, device) = (self.fit.model.valid(), self.device.clone().inner());
        let test = &self.data.test;
        let (mut wrong, mut loss) = (0usize, 0f64);
        for chunk in (0..test.len()).collect::<Vec<_>>().chunks(TEST_BATCH) {
            let (x, _) = tensors(test, chunk, &device);
            let log_p =
                log_softmax(model.forward(x), 1).into_data().try_into_vec::<f32>().expect("f32 in, f32 out");
            for (row, &index) in log_p.chunks(10).zip(chunk) {
                let label = usize::from(test.labels[index]);
                // A NaN is no right answer.
                let right = row.iter().enumerate().all(|(class, &p)| class == label || p < row[label]);
                wrong += usize::from(!right);
                loss -= f64::from(row[label]);
            }
        }
        (100.0 * wrong as f64 / test.len() as f64, loss / test.len() as f64)
    }
}

impl Unit for Training<'_> {
    fn done(&self) -> u64 {
        self.progress.updates * self.recipe.ticks
    }

    fn advance(&mut self) -> Result<bool, Error> {
        let all = self.updates();
        for _ in 0..STRIDE.min(all - self.progress.updates) {
            self.update();
        }
        Ok(self.progress.updates < all)
    }

    fn save(&self) -> Result<Option<Vec<u8>>, Error> {
        let failed = |reason: String| Error::State { unit: format!("seed {}", self.seed), reason };
        let progress = serde_json::to_vec(&self.progress).map_err(|e| failed(e.to_string()))?;
        // `valid` also completes batch norm's running statistics, which lag one update behind.
        let model = self.fit.model.valid().into_record().into_bytes().map_err(|e| failed(e.to_string()))?;
        let optimizer = self.fit.optimizer.into_bytes().map_err(|e| failed(e.to_string()))?;
        Ok(Some([&progress[..], &model, &optimizer].map(frame).concat()))
    }

    fn finish(self: Box<Self>) -> Result<Measured, Error> {
        let last = |curve: &[[f64; 2]]| curve.last().map_or(f64::NAN, |point| point[1]);
        let progress = self.progress;
        let values = [
            ("test error".to_owned(), last(&progress.errors)),
            ("test loss".to_owned(), last(&progress.test_losses)),
            ("train loss".to_owned(), last(&progress.losses)),
            ("updates".to_owned(), progress.updates as f64),
        ];
        let curves = [
            ("train loss".to_owned(), progress.losses),
            ("test error".to_owned(), progress.errors),
            ("test loss".to_owned(), progress.test_losses),
        ];
        let marks = [("weights".to_owned(), fingerprint(&self.fit.model.valid()))];
        Ok(Measured {
            values: values.into(),
            curves: curves.into(),
            marks: marks.into(),
            ..Measured::default()
        })
    }
}

/// Whether `done` of `all` ends one of `parts` equal parts.
fn due(done: u64, all: u64, parts: u64) -> bool {
    let parts = parts.min(all);
    done * parts / all > (done - 1) * parts / all
}

/// The mean negative log-likelihood of the labels.
pub fn nll(logits: Tensor<2>, labels: Tensor<2, Int>) -> Tensor<1> {
    log_softmax(logits, 1).gather(1, labels).mean().neg()
}

/// The chosen pictures as numbers in 0..1, with their labels as a column.
pub fn tensors(images: &Images, chosen: &[usize], device: &Device) -> (Tensor<2>, Tensor<2, Int>) {
    let pixels: Vec<f32> =
        chosen.iter().flat_map(|&index| images.picture(index)).map(|&p| f32::from(p) / 255.0).collect();
    let labels: Vec<i32> = chosen.iter().map(|&index| i32::from(images.labels[index])).collect();
    let x = Tensor::from_data(TensorData::new(pixels, [chosen.len(), images.size()]), device);
    (x, Tensor::from_data(TensorData::new(labels, [chosen.len(), 1]), device))
}

/// Random pictures, any of them more than once, as [`tensors`].
pub fn random(images: &Images, count: usize, rng: &mut Rng, device: &Device) -> (Tensor<2>, Tensor<2, Int>) {
    let all = u32::try_from(images.len()).expect("fewer pictures than 2^32");
    let chosen: Vec<usize> = (0..count).map(|_| rng.below(all) as usize).collect();
    tensors(images, &chosen, device)
}

/// The random pictures of an update, the same for every training of a seed.
pub fn of_update(
    images: &Images,
    count: usize,
    seed: u64,
    update: usize,
    device: &Device,
) -> (Tensor<2>, Tensor<2, Int>) {
    let index = u32::try_from(update).expect("fewer updates than 2^32");
    random(images, count, &mut Rng::new(seed, Purpose::Order, index), device)
}

/// The class with the highest logit or probability.
pub fn best(row: &[f32]) -> Option<usize> {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]))
}

/// How many rows of logits have another class than their label for their [`best`].
pub fn wrong(logits: Tensor<2>, labels: impl IntoIterator<Item = usize>) -> usize {
    let [_, classes] = logits.dims();
    let logits: Vec<f32> = logits.into_data().try_into_vec().expect("f32 in, f32 out");
    logits.chunks(classes).zip(labels).filter(|(row, label)| best(row) != Some(*label)).count()
}

/// A checksum of all weights' bits.
fn fingerprint(model: &Mlp) -> String {
    struct Sum(flate2::Crc);
    impl ModuleVisitor for Sum {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let weights = param.val().into_data().try_into_vec::<f32>().expect("the model is f32");
            weights.iter().for_each(|w| self.0.update(&w.to_bits().to_le_bytes()));
        }
    }
    let mut sum = Sum(flate2::Crc::new());
    model.visit(&mut sum);
    format!("{:08x}", sum.0.sum())
}

/// A length, then the bytes.
fn frame(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

/// Three frames and nothing else.
fn frames(mut bytes: &[u8]) -> Option<[&[u8]; 3]> {
    let mut found = [&[][..]; 3];
    for part in &mut found {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        (*part, bytes) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    }
    bytes.is_empty().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::super::norm::NormKind;
    use super::*;
    use crate::data;

    const KINDS: [NormKind; 4] = [NormKind::Plain, NormKind::Layer, NormKind::Rms, NormKind::Batch];

    fn recipe(norm: NormKind) -> Recipe {
        let shape = MlpShape { widths: vec![784, 20, 20, 10], norm };
        Recipe { shape, batch: 8, epochs: 3, rate: 1e-3, spans: 7, tests: 3, ticks: 1 }
    }

    /// Trains to the end, through a save and a load after each of `stops` steps.
    fn train(norm: NormKind, data: &Split, seed: u64, stops: &[usize]) -> Measured {
        let mut training = Training::new(recipe(norm), data, seed, None).unwrap();
        for &steps in stops {
            (0..steps).for_each(|_| assert!(training.advance().unwrap()));
            let saved = training.save().unwrap().unwrap();
            training = Training::new(recipe(norm), data, seed, Some(&saved)).unwrap();
        }
        while training.advance().unwrap() {}
        Box::new(training).finish().unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_through_interruptions() {
        let data = data::digits(None, 203, 60).unwrap();
        for norm in KINDS {
            let whole = train(norm, &data, 5, &[]);
            assert_eq!(whole.values["updates"], 75.0);
            assert_eq!(train(norm, &data, 5, &[]), whole, "{norm:?}: twice");
            // 8 updates a step: stops within an epoch, in the next one, in a span of losses.
            assert_eq!(train(norm, &data, 5, &[1, 3, 2]), whole, "{norm:?}: interrupted");
            assert_ne!(train(norm, &data, 6, &[]).marks, whole.marks, "{norm:?}: another seed");
        }
    }

    #[test]
    fn training_learns() {
        let data = data::digits(None, 400, 100).unwrap();
        for norm in KINDS {
            let losses = train(norm, &data, 0, &[]).curves["train loss"].clone();
            assert!(losses[6][1] < 0.8 * losses[0][1], "{norm:?}: {losses:?}");
        }
    }

    #[test]
    fn a_state_that_is_none_is_refused() {
        let data = data::digits(None, 40, 10).unwrap();
        let training = Training::new(recipe(NormKind::Layer), &data, 0, None).unwrap();
        let saved = training.save().unwrap().unwrap();
        let load = |norm, bytes: &[u8]| Training::new(recipe(norm), &data, 0, Some(bytes)).map(|_| ());
        assert!(load(NormKind::Layer, &saved).is_ok());
        assert!(matches!(load(NormKind::Layer, &saved[..saved.len() - 1]), Err(Error::State { .. })));
        assert!(matches!(load(NormKind::Layer, &[&saved[..], &[0]].concat()), Err(Error::State { .. })));
        assert!(matches!(load(NormKind::Batch, &saved), Err(Error::State { .. })));
    }

    #[test]
    fn parts_end_where_they_should() {
        let ends = |all, parts| (1..=all).filter(|&done| due(done, all, parts)).collect::<Vec<u64>>();
        assert_eq!(ends(10, 5), [2, 4, 6, 8, 10]);
        assert_eq!(ends(7, 3), [3, 5, 7]);
        assert_eq!(ends(3, 40), [1, 2, 3]);
    }
}
