//! The Fisher metric of a normalized layer, checked in numbers, and the learning rate that decays by itself (Ba, Kiros,
//! Hinton 2016, section 5.2).

mod layer;
mod training;

use std::collections::BTreeMap;

use self::layer::{Family, INPUTS, Method, Model, OUTPUTS, Rows, size};
use self::training::Training;
use crate::data::{self, Images};
use crate::models::norm::NormKind;
use crate::report::model::{Axis, Cell, Figure, LineChart, Matrix, MatrixRow, Measured, Point, Series, Tone};
use crate::rng::{Purpose, Rng};
use crate::study::{Arm, Card, Claim, Error, Plan, Request, Results, Rule, Study, Unit, settings, steps};

/// The study.
#[derive(Debug)]
pub struct Geometry;

const NAME: &str = "geometry";
const PAPER: &str = "Ba, Kiros, Hinton 2016, section 5.2";

static CARD: Card = Card {
    name: NAME,
    title: "A learning rate that decays by itself",
    question: "The output of a normalized layer does not change when its weights are doubled. So what do longer weights \
               change? How far a step of learning turns them.",
    metric: "curvature (Fisher's metric), gradients and turns of a small layer in double precision, eps 0; and the \
             lengths of weights in a real training",
    arms: &[
        Arm { name: "none", label: "no norm", tone: Tone::Plain },
        Arm { name: "ln", label: "layer norm", tone: Tone::Layer },
        Arm { name: "rms", label: "RMS norm", tone: Tone::Rms },
        Arm { name: "bn", label: "batch norm", tone: Tone::Batch },
        Arm { name: "wn", label: "weight norm", tone: Tone::Weight },
    ],
    claims: &[
        Claim {
            id: "G3",
            says: "With layer norm, doubling the weights divides the curvature by four. (The paper's text says that it \
                   halves; its equations say a quarter.)",
            source: PAPER,
            measure: "trace of the weights' Fisher metric with doubled weights over that before",
            effect: |seed| seed.value("ln", "curvature on doubling"),
            unit: "of the curvature",
            rule: Rule::Between(0.249_999, 0.250_001),
        },
        Claim {
            id: "G3",
            says: "It divides the gradient by two.",
            source: PAPER,
            measure: "length of the gradient with doubled weights over that before",
            effect: |seed| seed.value("ln", "gradient on doubling"),
            unit: "of the gradient",
            rule: Rule::Between(0.499_999, 0.500_001),
        },
        Claim {
            id: "G3",
            says: "So one step of gradient descent turns weights of double length by a quarter of the angle: the learning \
                   rate decays as they grow.",
            source: PAPER,
            measure: "angle between the weights before and after a step of rate 0.001, with doubled weights over that \
                      before",
            effect: |seed| seed.value("ln", "turn on doubling"),
            unit: "of the angle",
            rule: Rule::Between(0.2499, 0.2501),
        },
        Claim {
            id: "G3",
            says: "Fisher's metric is the divergence of predictions, up to third order, if the derivatives through the \
                   shared mean and deviation are kept.",
            source: "Ba, Kiros, Hinton 2016, equation 9",
            measure: "slope of the logarithm of |divergence - 1/2 d^T F d| over that of |d|: 3 for the exact Jacobian",
            effect: |seed| seed.value("ln", "order of the rest"),
            unit: "powers of the step",
            rule: Rule::Between(2.8, 3.2),
        },
        Claim {
            id: "G3",
            says: "Equations 13 and 14 keep each unit's derivative by its own weights alone; for layer norm that is \
                   another metric.",
            source: PAPER,
            measure: "how far the shortened metric is from the exact one along a random direction, relative to it",
            effect: |seed| seed.value("ln", "error of own derivatives"),
            unit: "of the metric",
            rule: Rule::Exceeds(0.01),
        },
        Claim {
            id: "G4",
            says: "Learning the gain depends on the prediction error alone, not on the size of the input.",
            source: "Ba, Kiros, Hinton 2016, supplement, equations 32 to 35",
            measure: "largest change of the gain's gradient when all inputs are multiplied by ten, over its length",
            effect: |seed| seed.value("ln", "gain gradient moves"),
            unit: "of the gradient",
            rule: Rule::Within(1e-9),
        },
        Claim {
            id: "G3",
            says: "In a real training the weights before layer norm grow, and the rate that they feel falls.",
            source: PAPER,
            measure: "learning rate over squared length of the weights, at the start over at the end of a training by \
                      gradient descent at a constant rate",
            effect: |seed| seed.value("ln", "growth of the squared length"),
            unit: "times as small",
            rule: Rule::Exceeds(1.05),
        },
        Claim {
            id: "G3",
            says: "They grow by their steps alone: each stands at a right angle to the weights, so squared lengths add up.",
            source: "Pythagoras, from the invariance to the weights' scale",
            measure: "squared length at the end less that at the start, over the sum of all squared steps, less 1",
            effect: |seed| {
                let value = |name| seed.value("ln", name);
                (value("growth of the squared length") - 1.0) / (value("growth by the steps alone") - 1.0)
                    - 1.0
            },
            unit: "of the growth",
            rule: Rule::Within(0.02),
        },
    ],
    takes: ["seconds", "a minute", "ten minutes"],
    seeds: [5, 10, 20],
    real_data: true,
};

const METHODS: [Method; 5] = [Method::None, Method::Layer, Method::Rms, Method::Batch, Method::Weight];
/// The norms of the training; weight norm has no place between layers.
const TRAINED: [Option<NormKind>; 5] =
    [Some(NormKind::Plain), Some(NormKind::Layer), Some(NormKind::Rms), Some(NormKind::Batch), None];
/// Updates of a piece of the training.
const PIECE: usize = 200;
/// Lengths of steps, each a root of ten from the next.
const LENGTHS: [f64; 5] = [0.316, 0.1, 0.0316, 0.01, 0.00316];

impl Study for Geometry {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error> {
        let pieces = request.budget.pick([2, 20, 100], 1);
        let data =
            data::digits(request.data.as_deref(), request.budget.pick([2000, 10_000, 55_000], 100), 0)?;
        Ok(Box::new(GeometryPlan { pieces, images: data.train, source: data.source }))
    }
}

struct GeometryPlan {
    /// Pieces of the training.
    pieces: usize,
    images: Images,
    source: String,
}

impl Plan for GeometryPlan {
    fn settings(&self) -> BTreeMap<String, String> {
        settings([
            ("data", self.source.clone()),
            ("updates", format!("{} by SGD at {}", self.pieces * PIECE, training::RATE)),
        ])
    }

    fn ticks(&self, arm: usize) -> u64 {
        1 + TRAINED[arm].map_or(0, |_| self.pieces as u64)
    }

    fn unit(&self, arm: usize, seed: u64, _: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
        let mut training = TRAINED[arm].map(|kind| Training::new(kind, &self.images, seed));
        let count = 1 + training.as_ref().map_or(0, |_| self.pieces);
        Ok(steps(count, move |step, measured| match &mut training {
            Some(training) if step > 0 => training.advance(PIECE, measured),
            _ => check(METHODS[arm], seed, measured),
        }))
    }

    fn figures(&self, all: &Results) -> Vec<Figure> {
        vec![
            Figure::Matrix(doubling(all)),
            Figure::Lines(rate(all)),
            Figure::Lines(lengths(all)),
            Figure::Lines(rest(all)),
        ]
    }

    fn notes(&self) -> Vec<String> {
        [
            "The layer of the checks has 10 inputs, 12 outputs and 48 cases, bells for weights and inputs, no eps. Coins \
             (Bernoulli outputs) where nothing else is said. Where the inputs are multiplied by ten, the outputs are bells \
             of constant variance: with coins the covariance of the outputs changes too, and the curvature of a layer \
             without norm grows by less than a hundred.",
            "The training: 64 hidden units with a norm and no bias before it, handwritten digits in batches of 32, plain \
             gradient descent at a constant rate, eps 1e-5. Weight norm sits in the weights, so it is not trained here.",
            "The effective rate is the learning rate over the squared length of the first layer's weights.",
        ]
        .map(str::to_owned)
        .into()
    }
}

/// The checks (a) to (e).
fn check(method: Method, seed: u64, measured: &mut Measured) {
    let mut rng = Rng::new(seed, Purpose::Study(NAME), 0);
    let coins = Model::new(method, Family::Bernoulli, &mut rng);
    let mut d: Rows = (0..OUTPUTS).map(|_| (0..INPUTS).map(|_| f64::from(rng.bell())).collect()).collect();
    let length = size(&d);
    d.iter_mut().flatten().for_each(|v| *v /= length);

    let doubled = coins.scaled(2.0, 1.0);
    measured.set("curvature on doubling", doubled.trace() / coins.trace());
    measured.set("gradient on doubling", size(&doubled.gradient()) / size(&coins.gradient()));
    measured.set("turn on doubling", turn(&doubled) / turn(&coins));

    let bells = Model { family: Family::Gaussian, ..coins.clone() };
    measured.set("curvature on inputs times ten", bells.scaled(1.0, 10.0).trace() / bells.trace());
    let coins_ten = coins.scaled(1.0, 10.0);
    measured.set("curvature on inputs times ten, coins", coins_ten.trace() / coins.trace());
    measured.set("gain gradient moves", moved(&coins.gain_gradient(), &coins_ten.gain_gradient()));

    let half = coins.metric(&d, false) / 2.0;
    let own = coins.metric(&d, true) / 2.0;
    measured.set("error of own derivatives", (own / half - 1.0).abs());
    for length in LENGTHS {
        let divergence = coins.divergence(&coins.moved(&d, length));
        measured.point("rest", length, (divergence - half * length * length).abs());
        measured.point("rest of own derivatives", length, (divergence - own * length * length).abs());
    }
    let rest = &measured.curves["rest"];
    let (long, short) = (rest[1], rest[rest.len() - 1]);
    measured.set("order of the rest", (long[1] / short[1]).ln() / (long[0] / short[0]).ln());
}

/// The angle by which one small step of gradient descent turns the weights.
fn turn(model: &Model) -> f64 {
    let after = model.moved(&model.gradient(), -1e-3);
    let inner: f64 = model.w.iter().flatten().zip(after.w.iter().flatten()).map(|(a, b)| a * b).sum();
    let lengths = size(&model.w) * size(&after.w);
    // By the sine: the cosine of a small angle has lost it to rounding.
    let apart: f64 = model
        .w
        .iter()
        .flatten()
        .zip(after.w.iter().flatten())
        .map(|(a, b)| (b - a * inner / size(&model.w).powi(2)).powi(2))
        .sum();
    (apart.sqrt() / size(&after.w)).atan2(inner / lengths)
}

/// The largest difference of two vectors, over the length of the first.
fn moved(a: &[f64], b: &[f64]) -> f64 {
    let length = a.iter().map(|a| a * a).sum::<f64>().sqrt();
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / length
}

fn doubling(all: &Results) -> Matrix {
    let row = |arm: &Arm| {
        let cell = |name: &str, expected: f64| {
            let value = all.mean(arm.name, name);
            let near = (value - expected).abs() <= 1e-3 * expected.max(1.0);
            Cell::new(format!("{value:.3}"), if near { 1.0 } else { -1.0 })
        };
        MatrixRow::new(
            arm.label,
            vec![
                cell("curvature on doubling", 0.25),
                cell("gradient on doubling", 0.5),
                cell("turn on doubling", 0.25),
                cell("curvature on inputs times ten", 1.0),
                cell("gain gradient moves", 0.0),
            ],
        )
    };
    Matrix::new(
        "What longer weights and larger inputs change",
        "Ratios, the mean over seeds. The first three columns: weights doubled; invariance makes them 1/4, 1/2 and 1/4. \
         Then inputs times ten: curvature of the weights, 1 where nothing changes, and how far the gain's gradient moves, \
         relative to its length. Blue is what a norm that forgets the scale gives, orange is anything else.",
        &["curvature", "gradient", "turn of a step", "curvature, inputs × 10", "gain's gradient moves"],
        CARD.arms.iter().map(row).collect(),
    )
}

/// The arms that were trained.
fn trained() -> impl Iterator<Item = &'static Arm> {
    CARD.arms.iter().zip(TRAINED).filter(|(_, kind)| kind.is_some()).map(|(arm, _)| arm)
}

fn rate(all: &Results) -> LineChart {
    LineChart {
        title: "The rate that the weights feel, at a constant learning rate".to_owned(),
        caption: "Learning rate over squared length of the first layer's weights, relative to the start; the mean over \
                  seeds, with the lowest and the highest. What is normalized can only grow, so its line can only fall."
            .to_owned(),
        x: Axis::linear("updates"),
        y: Axis::linear("effective rate"),
        series: trained().map(|arm| all.series(arm, "effective rate", 1.0)).collect(),
    }
}

fn lengths(all: &Results) -> LineChart {
    let find = |name: &str| CARD.arms.iter().find(|arm| arm.name == name).expect("an arm of the card");
    let with = |arm: &str, curve: &str, label: &'static str, tone: Tone| {
        all.series(&Arm { label, tone, ..*find(arm) }, curve, 1.0)
    };
    LineChart {
        title: "Pythagoras in a training".to_owned(),
        caption: "Squared length of the first layer's weights, relative to the start, beside what it would be if every \
                  step stood at a right angle to the weights. For layer norm the two lines should be one."
            .to_owned(),
        x: Axis::linear("updates"),
        y: Axis::linear("squared length"),
        series: vec![
            with("ln", "squared length", "layer norm", Tone::Layer),
            with("ln", "start and squared steps", "layer norm, by its steps", Tone::First),
            with("none", "squared length", "no norm", Tone::Plain),
            with("none", "start and squared steps", "no norm, by its steps", Tone::Fourth),
        ],
    }
}

fn rest(all: &Results) -> LineChart {
    let ln = CARD.arms.iter().find(|arm| arm.name == "ln").expect("an arm of the card");
    let exact = all.series(&Arm { label: "exact derivatives", ..*ln }, "rest", 1.0);
    let own = Arm { label: "own derivatives alone", tone: Tone::Fourth, ..*ln };
    let own = all.series(&own, "rest of own derivatives", 1.0);
    let longest = exact.points[0];
    let cube = |&x: &f64| {
        let y = longest.y * (x / longest.x).powi(3);
        Point { x, y, low: y, high: y }
    };
    let cubes = Series {
        label: "third power of the step".to_owned(),
        tone: Tone::Plain,
        points: LENGTHS.iter().map(cube).collect(),
    };
    LineChart {
        title: "What Fisher's metric leaves out of the divergence".to_owned(),
        caption: "|KL - 1/2 d^T F d| for layer norm, as the step d shrinks. The exact metric leaves a rest that falls with \
                  the third power. With each unit's own derivative alone it falls with the second: the metric itself is \
                  off."
            .to_owned(),
        x: Axis::log("length of the step"),
        y: Axis::log("rest"),
        series: vec![exact, own, cubes],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_an_angle() {
        let mut rng = Rng::new(1, Purpose::Study(NAME), 0);
        let model = Model::new(Method::Layer, Family::Bernoulli, &mut rng);
        // The gradient of layer norm stands at a right angle to the weights.
        let tangent = 1e-3 * size(&model.gradient()) / size(&model.w);
        assert!((turn(&model) / tangent.atan() - 1.0).abs() < 1e-9);
    }
}
