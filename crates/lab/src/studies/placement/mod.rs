//! Where the norm stands: two lines swapped, and what becomes of the gradients, of warm-up, and of the depth that a
//! network can have (Xiong et al. 2020). And layer norm with residual connections, two by two.

mod blocks;
mod crossed;
mod figures;
mod language;

use std::collections::BTreeMap;

use layernorm_burn::transformer::Placement;

use self::blocks::Blocks;
use self::crossed::Parts;
use crate::data::{self, Images};
use crate::report::model::{Figure, Tone};
use crate::study::{
    Arm, Budget, Card, Claim, Error, Plan, Request, Results, Rule, Seed, Study, Unit, settings, steps,
};

/// The study.
#[derive(Debug)]
pub struct PlacementStudy;

const NAME: &str = "placement";
const XIONG: &str = "Xiong et al. 2020, arXiv:2002.04745";

static CARD: Card = Card {
    name: NAME,
    title: "Two lines swapped",
    question: "Normalize what a block adds to, x = norm(x + f(x)), or what it looks at, x = x + f(norm(x))? The same \
               two lines in another order. What becomes of the gradients, and does it train without warm-up?",
    metric: "gradients of blocks before training, and losses after it",
    arms: &[
        Arm { name: "none", label: "no norm: x + f(x)", tone: Tone::Plain },
        Arm { name: "post", label: "post: norm(x + f(x))", tone: Tone::First },
        Arm { name: "pre", label: "pre: x + f(norm(x))", tone: Tone::Second },
        Arm { name: "peri", label: "peri: x + norm(f(norm(x)))", tone: Tone::Third },
        Arm { name: "neither", label: "neither", tone: Tone::Plain },
        Arm { name: "norm", label: "layer norm alone", tone: Tone::Layer },
        Arm { name: "residual", label: "residual alone", tone: Tone::Fourth },
        Arm { name: "both", label: "both", tone: Tone::Fifth },
    ],
    claims: &[
        Claim {
            id: "D4",
            says: "Before training, the gradient of the last block does not fall with depth in post-LN.",
            source: XIONG,
            measure: "slope of the logarithm of the gradient (of the loss at one position, by the last block's last \
                      matrix) over the logarithm of the number of blocks",
            effect: |seed| depth_slope(seed, "post"),
            unit: "powers of depth",
            rule: Rule::Within(0.2),
        },
        Claim {
            id: "D4",
            says: "In pre-LN it falls as one over the root of the depth.",
            source: XIONG,
            measure: "the same slope: -0.5 is the theory's",
            effect: |seed| depth_slope(seed, "pre"),
            unit: "powers of depth",
            rule: Rule::Between(-0.7, -0.3),
        },
        Claim {
            id: "D4",
            says: "Within a deep post-LN model the gradient grows from block to block; in pre-LN it does not.",
            source: XIONG,
            measure: "gradient of the last block over that of the first in the deepest model, post-LN's over pre-LN's",
            effect: |seed| growth(seed, "post") / growth(seed, "pre"),
            unit: "times",
            rule: Rule::Exceeds(2.0),
        },
        Claim {
            id: "D4",
            says: "Post-LN needs warm-up, pre-LN does not.",
            source: XIONG,
            measure: "the loss that a training without warm-up has above one with it, averaged over the learning \
                      rates, post-LN's less pre-LN's; losses over the last quarter of the training, at most that of \
                      guessing",
            effect: |seed| warm_up_gain(seed, "post") - warm_up_gain(seed, "pre"),
            unit: "nats",
            rule: Rule::Exceeds(0.1),
        },
        Claim {
            id: "D4",
            says: "Swap two lines and it trains: without warm-up, pre-LN learns what post-LN does not.",
            source: "folklore of textbooks",
            measure: "post-LN's loss less pre-LN's without warm-up, averaged over the learning rates, each over the \
                      last quarter of the training, at most that of guessing",
            effect: |seed| mean_loss(seed, "post", false) - mean_loss(seed, "pre", false),
            unit: "nats",
            rule: Rule::Exceeds(0.1),
        },
        Claim {
            id: "D3",
            says: "Layer norm and residual connections together do more than either alone.",
            source: "folklore of textbooks",
            measure: "the lower of the two losses with one of them, less the loss with both, each at its best \
                      learning rate and initialization and over the last quarter of the training",
            effect: |seed| best(seed, "norm").min(best(seed, "residual")) - best(seed, "both"),
            unit: "nats",
            rule: Rule::Exceeds(0.02),
        },
    ],
    takes: ["40 seconds", "five minutes", "an hour"],
    seeds: [3, 5, 10],
    real_data: true,
};

/// The placements of the first arms.
const PLACEMENTS: [Placement; 4] = [Placement::None, Placement::Post, Placement::Pre, Placement::Sandwich];
/// What the other arms have.
const PARTS: [Parts; 4] = [
    Parts { norm: false, residual: false },
    Parts { norm: true, residual: false },
    Parts { norm: false, residual: true },
    Parts { norm: true, residual: true },
];

/// What a budget buys.
#[derive(Clone, Debug)]
struct Size {
    /// Numbers of blocks of the models whose gradients are measured, and how many models of each.
    depths: &'static [usize],
    draws: u64,
    /// Texts of an update.
    batch: usize,
    /// Blocks of the model that is trained, and its updates.
    depth: usize,
    updates: usize,
    /// Layers of the network of digits, and its updates.
    layers: usize,
    crossed: usize,
}

fn size(budget: Budget) -> Size {
    let quick =
        Size { depths: &[2, 4, 8, 16], draws: 4, batch: 8, depth: 6, updates: 240, layers: 20, crossed: 100 };
    let standard = Size {
        depths: &[2, 4, 8, 16, 32],
        draws: 8,
        batch: 16,
        depth: 12,
        updates: 500,
        layers: 30,
        crossed: 1000,
    };
    let full = Size {
        depths: &[2, 4, 8, 16, 32, 64],
        draws: 8,
        batch: 16,
        depth: 24,
        updates: 2000,
        layers: 60,
        crossed: 4000,
    };
    let tiny = Size { depths: &[1, 2], draws: 1, batch: 1, depth: 1, updates: 4, layers: 1, crossed: 4 };
    match budget {
        Budget::Quick => quick,
        Budget::Standard => standard,
        Budget::Full => full,
        Budget::Tiny => tiny,
    }
}

impl Study for PlacementStudy {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error> {
        let data = data::digits(request.data.as_deref(), 2000, 0)?;
        Ok(Box::new(PlacementPlan { size: size(request.budget), images: data.train, source: data.source }))
    }
}

struct PlacementPlan {
    size: Size,
    images: Images,
    source: String,
}

impl Plan for PlacementPlan {
    fn settings(&self) -> BTreeMap<String, String> {
        settings([("size", format!("{:?}", self.size)), ("digits", self.source.clone())])
    }

    fn unit(&self, arm: usize, seed: u64, _: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
        if let Some(&placement) = PLACEMENTS.get(arm) {
            let blocks = Blocks::new(placement, &self.size, seed);
            return Ok(steps(blocks.steps(), move |step, measured| blocks.step(step, measured)));
        }
        let parts = PARTS[arm - PLACEMENTS.len()];
        Ok(steps(crossed::STEPS, move |step, measured| {
            crossed::train(parts, &self.size, &self.images, seed, step, measured);
        }))
    }

    fn figures(&self, all: &Results) -> Vec<Figure> {
        figures::all(&self.size, all)
    }

    fn notes(&self) -> Vec<String> {
        [
            "The language: what comes next follows from the last two of eight symbols by a table, except one time in four, \
             when it is drawn at random. The model: 32 features, 4 heads, ReLU, texts of 16 symbols, Xavier's weights, no \
             dropout, Adam. Every arm of a seed sees the same texts and begins with the same matrices.",
            "The theorem is about the loss at a single position, and so is what is measured here. In a mean over many \
             positions, gradients of different positions cancel in shallow models and agree in deep ones, where attention \
             has made the positions alike: then even post-LN's grows with depth.",
            "Peri-LN is the sandwich with a final norm. A post-LN model has no final norm besides its last block's.",
            "The two by two: layers x + relu(W norm(x)) of 64 features between linear layers, with or without each part, no \
             final norm. He's initialization keeps the scale of a plain network and lets a residual one without norm \
             explode; a smaller one does the reverse. So each of the four is shown at the better of the two.",
            "Chosen after a first look: the gradient at one position, and its mean over several models; the better of two \
             initializations in the two by two; no rate of 1e-2, at which post-LN didn't train with warm-up either; and \
             more updates. No rule was changed.",
        ]
        .map(str::to_owned)
        .into()
    }
}

/// The slope of a straight line through the logarithms of a curve.
fn depth_slope(seed: &Seed<'_>, arm: &str) -> f64 {
    slope(seed.curve(arm, "gradient of the last layer"))
}

fn slope(curve: &[[f64; 2]]) -> f64 {
    let points = || curve.iter().map(|[x, y]| [x.ln(), y.ln()]);
    let mean = |axis: usize| points().map(|point| point[axis]).sum::<f64>() / curve.len() as f64;
    let (x, y) = (mean(0), mean(1));
    let sum = |f: fn(f64, f64) -> f64| points().map(|p| f(p[0] - x, p[1] - y)).sum::<f64>();
    sum(|dx, dy| dx * dy) / sum(|dx, _| dx * dx)
}

/// The gradient of the last block over that of the first, in the deepest model.
fn growth(seed: &Seed<'_>, arm: &str) -> f64 {
    let deepest = seed.curve(arm, "gradient of the last layer").last().map_or(f64::NAN, |point| point[0]);
    match seed.curve(arm, &format!("gradient by layer of {deepest}")) {
        [first, .., last] => last[1] / first[1],
        _ => f64::NAN,
    }
}

fn mean_loss(seed: &Seed<'_>, arm: &str, warm_up: bool) -> f64 {
    let losses = blocks::RATES.map(|rate| seed.value(arm, &blocks::run_name(rate, warm_up)));
    losses.iter().sum::<f64>() / losses.len() as f64
}

fn warm_up_gain(seed: &Seed<'_>, arm: &str) -> f64 {
    mean_loss(seed, arm, false) - mean_loss(seed, arm, true)
}

fn best(seed: &Seed<'_>, arm: &str) -> f64 {
    let losses = (0..crossed::STEPS).map(|step| seed.value(arm, &crossed::run_name(step)));
    losses.fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_power_is_its_exponent() {
        let curve: Vec<[f64; 2]> = [2.0f64, 4.0, 8.0, 32.0].map(|x| [x, 3.0 * x.powf(-0.5)]).into();
        assert!((slope(&curve) + 0.5).abs() < 1e-12);
    }
}
