//! Learning rates: how large, how wide the window, how it depends on the first weights, and what weight decay has to do
//! with it.

mod decay;
mod sweep;

use std::collections::BTreeMap;

use self::decay::Change;
use self::sweep::{BATCH, Method, SCALES, Sweep, largest, window};
use crate::data::{self, Images};
use crate::models::fit::curve;
use crate::models::norm::NormKind;
use crate::report::model::{Axis, Cell, Figure, LineChart, Matrix, MatrixRow, Measured, Tone};
use crate::study::{
    Arm, Budget, Card, Claim, Error, Plan, Request, Results, Rule, Seed, Study, Unit, settings, steps,
};

/// The study.
#[derive(Debug)]
pub struct Rates;

const FOLKLORE: &str = "folklore of textbooks";

static CARD: Card = Card {
    name: "rates",
    title: "How fast may it learn?",
    question: "Too small a learning rate learns nothing, too large a one destroys. Does normalization widen the window \
               between the two, does it make the first weights unimportant, and what does weight decay decay?",
    metric: "loss on handwritten digits at the end of short trainings; a rate is usable if it comes below half the loss of \
             guessing",
    arms: &[
        Arm { name: "none", label: "no norm", tone: Tone::Plain },
        Arm { name: "ln", label: "layer norm", tone: Tone::Layer },
        Arm { name: "rms", label: "RMS norm", tone: Tone::Rms },
        Arm { name: "bn", label: "batch norm", tone: Tone::Batch },
    ],
    claims: &[
        Claim {
            id: "D2",
            says: "With layer norm higher learning rates are stable, for SGD.",
            source: FOLKLORE,
            measure: "doublings between the largest usable rate without norm and with layer norm, the mean over depths",
            effect: |seed| {
                over_depths(seed, "ln", largest, Method::Sgd)
                    - over_depths(seed, "none", largest, Method::Sgd)
            },
            unit: "doublings of the rate",
            rule: Rule::Exceeds(0.5),
        },
        Claim {
            id: "D2",
            says: "And for Adam.",
            source: FOLKLORE,
            measure: "the same with Adam",
            effect: |seed| {
                over_depths(seed, "ln", largest, Method::Adam)
                    - over_depths(seed, "none", largest, Method::Adam)
            },
            unit: "doublings of the rate",
            rule: Rule::Exceeds(0.5),
        },
        Claim {
            id: "D2",
            says: "The window of usable rates is wider.",
            source: FOLKLORE,
            measure: "width of the window with layer norm less that without norm, the mean over SGD, Adam and depths",
            effect: |seed| {
                let width = |arm| {
                    Method::ALL.map(|method| over_depths(seed, arm, window, method)).iter().sum::<f64>() / 2.0
                };
                width("ln") - width("none")
            },
            unit: "doublings of the rate",
            rule: Rule::Exceeds(0.5),
        },
        Claim {
            id: "D2",
            says: "It is less sensitive to the first weights.",
            source: FOLKLORE,
            measure: "highest less lowest loss over first weights of 1/16 to 16 times He's, without norm less with layer \
                      norm, the mean over SGD and Adam, each at the rate that is best for He's",
            effect: |seed| spread(seed, "none") - spread(seed, "ln"),
            unit: "nats",
            rule: Rule::Exceeds(0.1),
        },
        Claim {
            id: "N2",
            says: "Layer norm does not replace initialization: the first weights still matter.",
            source: FOLKLORE,
            measure: "highest less lowest loss over first weights of 1/16 to 16 times He's with layer norm, the mean over \
                      SGD and Adam",
            effect: |seed| spread(seed, "ln"),
            unit: "nats",
            rule: Rule::Exceeds(0.1),
        },
        Claim {
            id: "D6",
            says: "Weight decay on weights before layer norm is a schedule: it does to the training what a rising learning \
                   rate does.",
            source: "van Laarhoven 2017; Li, Arora 2019",
            measure: "distance between the losses with weight decay and with the rate that rises instead, over the \
                      distance between those with and without decay",
            effect: |seed| seed.value("ln", "decay against rising rate"),
            unit: "of what decay changes",
            rule: Rule::Within(0.1),
        },
        Claim {
            id: "D6",
            says: "And the size of the first weights is part of the learning rate: twice the weights need four times the \
                   rate.",
            source: "Ba, Kiros, Hinton 2016, section 5.2",
            measure: "distance between the losses with twice the weights at four times the rate and the plain ones, over \
                      the distance that four times the rate alone makes",
            effect: |seed| seed.value("ln", "double against plain"),
            unit: "of what the rate changes",
            rule: Rule::Within(0.1),
        },
    ],
    takes: ["20 seconds", "five minutes", "an hour"],
    seeds: [3, 5, 10],
    real_data: true,
};

const KINDS: [NormKind; 4] = [NormKind::Plain, NormKind::Layer, NormKind::Rms, NormKind::Batch];
/// Hidden layers of the networks.
const DEPTHS: [usize; 2] = [2, 8];
const DEEP: usize = DEPTHS[1];

/// What a budget buys.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Updates of each training of a sweep, and of those with weight decay.
    updates: usize,
    decay: usize,
}

fn size(budget: Budget) -> Size {
    let sizes = [(100, 200), (600, 1000), (3000, 2000)].map(|(updates, decay)| Size { updates, decay });
    budget.pick(sizes, Size { updates: 2, decay: 4 })
}

impl Study for Rates {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error> {
        let data =
            data::digits(request.data.as_deref(), request.budget.pick([2000, 10_000, 55_000], 100), 0)?;
        Ok(Box::new(RatesPlan { size: size(request.budget), images: data.train, source: data.source }))
    }
}

struct RatesPlan {
    size: Size,
    images: Images,
    source: String,
}

/// A training of an arm.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// At one rate: method, depth, number of the rate.
    Rate(Method, usize, usize),
    /// From one size of first weights: method, number of the size.
    Scale(Method, usize),
    /// With and without weight decay.
    Decay,
}

/// All of an arm, in order: the sizes need to know the best rates.
fn plan() -> Vec<Step> {
    let rates = Method::ALL.into_iter().flat_map(|method| {
        DEPTHS.into_iter().flat_map(move |depth| {
            (0..method.rates().len()).map(move |index| Step::Rate(method, depth, index))
        })
    });
    let scales = Method::ALL
        .into_iter()
        .flat_map(|method| (0..SCALES.len()).map(move |index| Step::Scale(method, index)));
    rates.chain(scales).chain([Step::Decay]).collect()
}

impl Plan for RatesPlan {
    fn settings(&self) -> BTreeMap<String, String> {
        settings([("data", self.source.clone()), ("size", format!("{:?}, batches of {BATCH}", self.size))])
    }

    fn ticks(&self, _: usize) -> u64 {
        plan().len() as u64
    }

    fn unit(&self, arm: usize, seed: u64, _: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
        let sweep = Sweep { kind: KINDS[arm], size: &self.size, images: &self.images, seed };
        let plan = plan();
        Ok(steps(plan.len(), move |step, measured| match plan[step] {
            Step::Rate(method, depth, index) => sweep.rate(method, depth, index, measured),
            Step::Scale(method, index) => sweep.scale(method, DEEP, index, measured),
            Step::Decay => self.decays(KINDS[arm], seed, measured),
        }))
    }

    fn figures(&self, all: &Results) -> Vec<Figure> {
        let mut figures = Vec::new();
        figures.extend(Method::ALL.map(|method| Figure::Matrix(windows(all, method))));
        figures.extend(Method::ALL.map(|method| Figure::Lines(by_first_weights(all, method))));
        figures.extend(["ln", "none"].map(|arm| Figure::Lines(decays(all, arm))));
        figures
    }

    fn notes(&self) -> Vec<String> {
        [
            "Networks of 2 and 8 hidden layers of 32 units with ReLU, a norm before each; batch norm before the softmax \
             too. First weights from a bell of He's deviation. Rates go in steps of four, so an edge of a window is known to \
             two doublings in one seed. Where no rate is usable, the largest counts as one step below the lowest.",
            "These networks have no residual connections, and He's weights are the best that a network without norm can \
             begin with: the comparison is made where layer norm has the least to repair. The study of placement has the \
             one with residual connections.",
            "Weight decay and its replacements act on the first layer of a network with one hidden layer, without a bias \
             before the norm and with eps 0; the last layer learns at the plain rate. Of plain gradient descent this is \
             exact: the gradient of what does not feel the scale of its weights falls as their length grows. What is left \
             is rounding.",
        ]
        .map(str::to_owned)
        .into()
    }
}

impl RatesPlan {
    fn decays(&self, kind: NormKind, seed: u64, measured: &mut Measured) {
        let losses = Change::ALL.map(|change| decay::losses(kind, change, &self.size, &self.images, seed));
        for (change, losses) in Change::ALL.iter().zip(&losses) {
            measured.curves.insert(change.name().to_owned(), curve(losses, 40));
        }
        let [plain, decayed, rising, double, four] = &losses;
        let share = |a, b, c| decay::gap(a, b) / decay::gap(a, c);
        measured.set("decay against rising rate", share(decayed, rising, plain));
        measured.set("double against plain", share(plain, double, four));
    }
}

/// The mean over depths of what a curve of losses by rate says.
fn over_depths(seed: &Seed<'_>, arm: &str, what: fn(&[[f64; 2]]) -> f64, method: Method) -> f64 {
    let values = DEPTHS.map(|depth| what(seed.curve(arm, &sweep::by_rate(method, depth))));
    values.iter().sum::<f64>() / DEPTHS.len() as f64
}

fn spread(seed: &Seed<'_>, arm: &str) -> f64 {
    let values = Method::ALL.map(|method| sweep::spread(seed.curve(arm, &sweep::by_scale(method))));
    values.iter().sum::<f64>() / Method::ALL.len() as f64
}

fn windows(all: &Results, method: Method) -> Matrix {
    let rows = DEPTHS.iter().flat_map(|&depth| {
        CARD.arms.iter().map(move |arm| {
            let cell = |point: &crate::report::model::Point| {
                Cell::new(format!("{:.1}", point.y), 1.0 - 2.0 * (point.y / 10f64.ln()).clamp(0.0, 1.0))
            };
            let series = all.series(arm, &sweep::by_rate(method, depth), 1.0);
            MatrixRow::new(
                &format!("{}, {depth} layers", arm.label),
                series.points.iter().map(cell).collect(),
            )
        })
    });
    let columns: Vec<String> =
        method.rates().iter().map(|rate| format!("{}", (rate * 1e5).round() / 1e5)).collect();
    Matrix::new(
        &format!("The window of learning rates, {}", method.name()),
        "Loss at the end of a short training by learning rate, the mean over seeds. Blue has learnt, orange guesses (2.3) \
         or worse, which counts as guessing.",
        &columns.iter().map(String::as_str).collect::<Vec<_>>(),
        rows.collect(),
    )
}

fn by_first_weights(all: &Results, method: Method) -> LineChart {
    LineChart {
        title: format!("First weights from a sixteenth to sixteen times, {}", method.name()),
        caption: format!(
            "Loss of the network of {DEEP} layers, at the rate that was best for He's weights; the mean over seeds, with \
             the lowest and the highest. A flat line does not care about its {} beginnings.",
            SCALES.len()
        ),
        x: Axis::log("first weights, relative to He's"),
        y: Axis::linear("loss, nats"),
        series: CARD.arms.iter().map(|arm| all.series(arm, &sweep::by_scale(method), 1.0)).collect(),
    }
}

fn decays(all: &Results, arm: &str) -> LineChart {
    let arm = CARD.arms.iter().find(|of| of.name == arm).expect("an arm of the card");
    let tones = [Tone::Plain, Tone::First, Tone::Second];
    let series = Change::ALL
        .iter()
        .zip(tones)
        .map(|(change, tone)| all.series(&Arm { label: change.name(), tone, ..*arm }, change.name(), 1.0));
    LineChart {
        title: format!("Weight decay as a rising rate: {}", arm.label),
        caption: format!(
            "Training loss with {}. Where weights are normalized, decay and the rising rate should be one line.",
            arm.label
        ),
        x: Axis::linear("updates"),
        y: Axis::log("loss, nats"),
        series: series.collect(),
    }
}
