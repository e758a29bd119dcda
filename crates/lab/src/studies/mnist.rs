//! The paper's permutation-invariant MNIST: 784-1000-1000-10, ReLU, Adam, batches of 128 and of 4 (section 6.6 of
//! Ba, Kiros and Hinton 2016).

use std::collections::BTreeMap;

use crate::data::{self, Split};
use crate::models::mlp::MlpShape;
use crate::models::norm::{EPSILON, NormKind};
use crate::models::train::{Recipe, Training};
use crate::report::model::{Axis, Figure, ImageGrid, ImageRow, LineChart, Table, Tone};
use crate::report::picture;
use crate::study::{
    Arm, Budget, Card, Claim, Error, Plan, Request, Results, Rule, Seed, Study, Unit, settings,
};

/// The study.
#[derive(Debug)]
pub struct Mnist;

const PAPER: &str = "Ba, Kiros, Hinton 2016, section 6.6";

static CARD: Card = Card {
    name: "mnist",
    title: "Small batches and fast learning on handwritten digits",
    question: "A network reads digits, pixel by pixel. Does layer norm learn in fewer steps than no normalization at \
               all? And when a batch shrinks from 128 pictures to 4, does it hold up better than batch norm, which \
               takes its statistics from the batch?",
    metric: "training loss (negative log-likelihood) and error on test pictures",
    arms: &[
        Arm { name: "ln_128", label: "layer norm", tone: Tone::Layer },
        Arm { name: "bn_128", label: "batch norm", tone: Tone::Batch },
        Arm { name: "rms_128", label: "RMS norm", tone: Tone::Rms },
        Arm { name: "none_128", label: "no norm", tone: Tone::Plain },
        Arm { name: "ln_4", label: "layer norm", tone: Tone::Layer },
        Arm { name: "bn_4", label: "batch norm", tone: Tone::Batch },
        Arm { name: "rms_4", label: "RMS norm", tone: Tone::Rms },
        Arm { name: "none_4", label: "no norm", tone: Tone::Plain },
    ],
    claims: &[
        Claim {
            id: "C1",
            says: "With layer norm the network converges faster than without.",
            source: PAPER,
            measure: "updates at batch 128 that the network without norm needs to reach the higher of the two final \
                      training losses, over those that layer norm needs",
            effect: |seed| speed_up(seed.curve("ln_128", "train loss"), seed.curve("none_128", "train loss")),
            unit: "times as many updates",
            rule: Rule::Exceeds(1.1),
        },
        Claim {
            id: "C1",
            says: "Layer norm is robust to small batches, where batch norm is not.",
            source: PAPER,
            measure: "how much more test error batch norm gains from batch 128 to batch 4 than layer norm does, \
                      each as the mean over the second half of the same number of epochs",
            effect: |seed| {
                (late(seed, "bn_4") - late(seed, "bn_128")) - (late(seed, "ln_4") - late(seed, "ln_128"))
            },
            unit: "points of test error",
            rule: Rule::Exceeds(0.1),
        },
        Claim {
            id: "E1",
            says: "RMS norm, which leaves out the mean, is as good as layer norm.",
            source: "Zhang, Sennrich 2019",
            measure: "test error of RMS norm less that of layer norm at batch 128, each as the mean over the second \
                      half of the run",
            effect: |seed| late(seed, "rms_128") - late(seed, "ln_128"),
            unit: "points of test error",
            rule: Rule::Within(0.5),
        },
    ],
    takes: ["a minute or two", "20 minutes", "14 hours (the paper's 60 epochs, three seeds)"],
    seeds: [5, 5, 3],
    real_data: true,
};

/// Norm and batch size of each arm, in the card's order.
const ARMS: [(NormKind, usize); 8] = [
    (NormKind::Layer, 128),
    (NormKind::Batch, 128),
    (NormKind::Rms, 128),
    (NormKind::Plain, 128),
    (NormKind::Layer, 4),
    (NormKind::Batch, 4),
    (NormKind::Rms, 4),
    (NormKind::Plain, 4),
];

/// What a budget buys.
#[derive(Clone, Copy, Debug)]
struct Size {
    train: usize,
    test: usize,
    epochs: u64,
    hidden: usize,
    tests: u64,
}

impl Study for Mnist {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error> {
        let size = size(request.budget);
        let data = data::digits(request.data.as_deref(), size.train, size.test)?;
        Ok(Box::new(MnistPlan { size, data }))
    }
}

fn size(budget: Budget) -> Size {
    let quick = Size { train: 1024, test: 1000, epochs: 3, hidden: 1000, tests: 6 };
    let standard = Size { train: 10_000, test: 10_000, epochs: 4, hidden: 1000, tests: 16 };
    let full = Size { train: 55_000, test: 10_000, epochs: 60, hidden: 1000, tests: 60 };
    budget.pick([quick, standard, full], Size { train: 256, test: 100, epochs: 2, hidden: 24, tests: 2 })
}

struct MnistPlan {
    size: Size,
    data: Split,
}

impl MnistPlan {
    fn recipe(&self, arm: usize) -> Recipe {
        let (norm, batch) = ARMS[arm];
        let Size { epochs, hidden, tests, .. } = self.size;
        let shape = MlpShape { widths: vec![self.data.train.size(), hidden, hidden, 10], norm };
        // An update takes about 24 ms at batch 128 and 10 ms at batch 4.
        let ticks = if batch == 128 { 24 } else { 10 };
        Recipe { shape, batch, epochs, rate: 1e-3, spans: 40, tests, ticks }
    }

    fn curves(&self, all: &Results, name: &str, batch: usize) -> LineChart {
        let arms = CARD.arms.iter().zip(ARMS).filter(|(_, (_, arm_batch))| *arm_batch == batch);
        let per_epoch = (self.data.train.len() / batch) as f64;
        let loss = name == "train loss";
        let stretch = if loss { 1.0 / per_epoch } else { 1.0 };
        let y = if loss { "training loss" } else { "test error, %" };
        LineChart {
            title: format!("{} at batch {batch}", if loss { "Training loss" } else { "Test error" }),
            caption: String::new(),
            x: Axis::linear("epochs"),
            y: Axis::log(y),
            series: arms.map(|(arm, _)| all.series(arm, name, stretch)).collect(),
        }
    }

    fn table(&self, all: &Results) -> Table {
        let rows = CARD.arms.iter().zip(ARMS).map(|(arm, (_, batch))| {
            let units = all.units().iter().filter(|unit| unit.arm == arm.name);
            let seconds: f64 = units.map(|unit| unit.seconds).sum();
            vec![
                arm.label.to_owned(),
                batch.to_string(),
                all.spread(arm.name, "test error", 2),
                all.spread(arm.name, "test loss", 3),
                all.spread(arm.name, "train loss", 4),
                format!("{:.1}", 1e3 * seconds / all.values(arm.name, "updates").iter().sum::<f64>()),
            ]
        });
        Table::new(
            "At the end",
            "Mean over seeds, with the lowest and the highest seed. Time includes the tests, with one arm on each of the \
             processor's threads.",
            &["method", "batch", "test error, %", "test loss", "train loss", "ms an update"],
            rows.collect(),
        )
    }

    /// A contact sheet of what is learnt.
    fn sheet(&self) -> ImageGrid {
        const ACROSS: usize = 20;
        const DOWN: usize = 3;
        let images = &self.data.train;
        let mut pixels = Vec::with_capacity(ACROSS * DOWN * images.size());
        for row in 0..DOWN * images.rows {
            for column in 0..ACROSS {
                let index = (row / images.rows * ACROSS + column) % images.len();
                let line = row % images.rows * images.columns;
                pixels.extend_from_slice(&images.picture(index)[line..][..images.columns]);
            }
        }
        let image = picture::ink(ACROSS * images.columns, &pixels, "sixty handwritten digits");
        ImageGrid {
            title: "What is learnt".to_owned(),
            caption: format!("The first pictures of the training set: {}.", self.data.source),
            columns: Vec::new(),
            rows: vec![ImageRow { label: String::new(), images: vec![image] }],
        }
    }
}

impl Plan for MnistPlan {
    fn settings(&self) -> BTreeMap<String, String> {
        let Size { epochs, hidden, .. } = self.size;
        let network = format!("784-{hidden}-{hidden}-10, ReLU, eps {EPSILON:e}");
        settings([
            ("data", self.data.source.clone()),
            ("epochs", epochs.to_string()),
            ("network", network),
            ("optimizer", "Adam, rate 1e-3, beta 0.9 and 0.999, epsilon 1e-8".to_owned()),
        ])
    }

    fn ticks(&self, arm: usize) -> u64 {
        let recipe = self.recipe(arm);
        recipe.updates(self.data.train.len()) * recipe.ticks
    }

    fn unit(&self, arm: usize, seed: u64, saved: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
        Ok(Box::new(Training::new(self.recipe(arm), &self.data, seed, saved)?))
    }

    fn figures(&self, all: &Results) -> Vec<Figure> {
        let mut charts: Vec<LineChart> =
            [("train loss", 128), ("train loss", 4), ("test error", 128), ("test error", 4)]
                .map(|(name, batch)| self.curves(all, name, batch))
                .into();
        charts[0].caption =
            "The mean loss of the updates since the last point. Lines are means over seeds, bands reach \
                             from the lowest to the highest seed."
                .to_owned();
        charts[1].caption =
            "The same pictures in batches of four: 32 times as many updates in an epoch.".to_owned();
        charts[2].caption = "Pictures that were never trained on, in inference mode.".to_owned();
        charts[3].caption = "Batch norm now estimates each statistic from four numbers.".to_owned();
        let mut figures: Vec<Figure> = charts.into_iter().map(Figure::Lines).collect();
        figures.push(Figure::Table(self.table(all)));
        figures.push(Figure::Images(self.sheet()));
        figures
    }

    fn notes(&self) -> Vec<String> {
        let Size { epochs, train, .. } = self.size;
        [
            "Layer norm and RMS norm are on the hidden layers; batch norm is on all layers, the softmax's too: the \
             paper's set-up. The paper gives no activation, rate or initialization: here ReLU, Adam at 1e-3, uniform \
             weights within 1/sqrt(inputs).",
            "Batch norm's running variance is the unbiased one at all batch sizes (momentum 0.1, as in PyTorch), as the \
             paper's at batch 4.",
            "All arms of a seed start from the same weights and see the samples in the same order.",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain(std::iter::once(format!(
            "{epochs} epochs of {train} pictures here; the paper trained for 60 epochs of 55,000 MNIST pictures."
        )))
        .collect()
    }
}

/// The test error of an arm of trained classifiers, late.
pub fn late(seed: &Seed<'_>, arm: &str) -> f64 {
    late_mean(seed.curve(arm, "test error"))
}

/// The mean over the second half of a curve: a single late test at batch 4 jumps by points.
fn late_mean(curve: &[[f64; 2]]) -> f64 {
    let late = &curve[curve.len() / 2..];
    late.iter().map(|point| point[1]).sum::<f64>() / late.len() as f64
}

/// How many times as many updates `slow` needs to come down to the higher of the two final losses. The final loss is
/// the mean of the last tenth of a curve; both curves reach the higher one, so the measure treats them alike.
fn speed_up(fast: &[[f64; 2]], slow: &[[f64; 2]]) -> f64 {
    let last = |curve: &[[f64; 2]]| {
        let tail = &curve[curve.len() - curve.len().div_ceil(10)..];
        tail.iter().map(|point| point[1]).sum::<f64>() / tail.len() as f64
    };
    let level = last(fast).max(last(slow));
    reach(slow, level) / reach(fast, level)
}

/// Where a curve first comes down to `level`, on the straight line between its points; NaN if it never does.
fn reach(curve: &[[f64; 2]], level: f64) -> f64 {
    let Some(index) = curve.iter().position(|point| point[1] <= level) else { return f64::NAN };
    let [x, y] = curve[index];
    match index.checked_sub(1).map(|before| curve[before]) {
        Some([x0, y0]) => x0 + (x - x0) * (y0 - level) / (y0 - y),
        None => x,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaching_is_interpolated() {
        let curve = [[10.0, 3.0], [20.0, 2.0], [30.0, 1.0]];
        assert_eq!(reach(&curve, 1.5), 25.0);
        assert_eq!(reach(&curve, 5.0), 10.0);
        assert!(reach(&curve, 0.5).is_nan());
    }

    #[test]
    fn late_means_the_second_half() {
        assert_eq!(late_mean(&[[1.0, 90.0], [2.0, 50.0], [3.0, 4.0], [4.0, 2.0]]), 3.0);
    }

    #[test]
    fn the_speed_up_is_fair() {
        // Twenty points each; the second curve falls at half the speed.
        let line =
            |speed: f64| (1..=20).map(|i| [f64::from(i), 10.0 - speed * f64::from(i)]).collect::<Vec<_>>();
        let (fast, slow) = (line(0.4), line(0.2));
        assert!((speed_up(&fast, &slow) - 2.0).abs() < 1e-9);
        assert!((speed_up(&slow, &fast) - 0.5).abs() < 1e-9);
        assert_eq!(speed_up(&fast, &fast), 1.0);
    }

    #[test]
    fn arms_are_named_after_what_they_are() {
        for (arm, (norm, batch)) in CARD.arms.iter().zip(ARMS) {
            let key = match norm {
                NormKind::Layer => "ln",
                NormKind::Batch => "bn",
                NormKind::Rms => "rms",
                NormKind::Plain => "none",
                NormKind::BurnLayer => "burn",
            };
            assert_eq!(arm.name, format!("{key}_{batch}"));
        }
    }
}
