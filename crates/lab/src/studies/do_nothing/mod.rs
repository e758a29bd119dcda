//! Gain and bias: what they keep of a layer, and whether they can undo its normalization.

mod students;
mod undo;

use std::collections::BTreeMap;

use crate::data::digits::{Paper, Part, draw};
use crate::report::model::{Axis, Figure, ImageGrid, ImageRow, LineChart, Tone};
use crate::report::picture;
use crate::study::{Arm, Card, Claim, Error, Plan, Request, Results, Rule, Study, Unit, settings, steps};
use layernorm_burn::{Affine, NormConfig};

/// The study.
#[derive(Debug)]
pub struct DoNothing;

static CARD: Card = Card {
    name: "do-nothing",
    title: "Gain, bias, and doing nothing",
    question: "After normalizing, layer norm multiplies each unit by a learnt gain and adds a learnt bias. What is lost \
               without them? And can they learn to undo the normalization, so that it does no harm where it isn't \
               wanted?",
    metric: "how well a student network imitates a teacher; how well the best gain and bias restore the input",
    arms: &[
        Arm { name: "unit", label: "gain and bias for each unit", tone: Tone::First },
        Arm { name: "shared", label: "one gain and bias for all", tone: Tone::Second },
        Arm { name: "none", label: "no gain and bias", tone: Tone::Third },
        Arm { name: "ln", label: "layer norm", tone: Tone::Layer },
        Arm { name: "rms", label: "RMS norm", tone: Tone::Rms },
        Arm { name: "bn", label: "batch norm in inference", tone: Tone::Batch },
    ],
    claims: &[
        Claim {
            id: "M4",
            says: "A shared gain and bias keep less of what a layer can express than one for each unit.",
            source: "Ba, Kiros, Hinton 2016, section 3",
            measure: "error of a student that imitates a teacher with a gain and a bias for each unit, with shared ones \
                      over with one for each unit",
            effect: |seed| seed.value("shared", "error") / seed.value("unit", "error"),
            unit: "times the error",
            rule: Rule::Exceeds(1.1),
        },
        Claim {
            id: "M4",
            says: "No gain and bias at all keep still less.",
            source: "Ba, Kiros, Hinton 2016, section 3",
            measure: "error of that student without gain and bias, over with shared ones",
            effect: |seed| seed.value("none", "error") / seed.value("shared", "error"),
            unit: "times the error",
            rule: Rule::Exceeds(1.1),
        },
        Claim {
            id: "M5",
            says: "Where all inputs have one mean and one variance, gain and bias can undo layer norm exactly.",
            source: "folklore of textbooks, without the condition",
            measure: "distance of the restored input from the input, by the best gain and bias (least squares)",
            effect: |seed| seed.at("ln", "undone", 0.0),
            unit: "of the input's spread",
            rule: Rule::Within(1e-5),
        },
        Claim {
            id: "M5",
            says: "Where means and variances differ from input to input, no gain and bias can undo it: what made an \
                   input large or small is gone.",
            source: "against folklore, which says that it can always learn to do nothing",
            measure: "that distance for inputs whose standard deviations lie between half and double",
            effect: |seed| seed.at("ln", "undone", 1.0),
            unit: "of the input's spread",
            rule: Rule::Exceeds(0.1),
        },
        Claim {
            id: "M5",
            says: "Batch norm in inference can be undone exactly, whatever the inputs.",
            source: "by its formula",
            measure: "that distance after batch norm by its running statistics, for the same inputs",
            effect: |seed| seed.at("bn", "undone", 1.0),
            unit: "of the input's spread",
            rule: Rule::Within(1e-5),
        },
    ],
    takes: ["10 seconds", "a minute", "ten minutes"],
    seeds: [5, 10, 20],
    real_data: false,
};

/// What the students have.
const AFFINE: [Affine; 3] = [Affine::PerUnit, Affine::Shared, Affine::None];

impl Study for DoNothing {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error> {
        let updates = request.budget.pick([8000, 40_000, 200_000], 20);
        Ok(Box::new(DoNothingPlan { updates }))
    }
}

struct DoNothingPlan {
    /// Of each student.
    updates: usize,
}

/// Spans of the students' curves, and steps of their units.
const SPANS: usize = 20;

impl Plan for DoNothingPlan {
    fn settings(&self) -> BTreeMap<String, String> {
        settings([
            ("student and teacher", format!("{}; {} updates by Adam at 3e-3", students::SHAPE, self.updates)),
            ("inputs to restore", undo::SHAPE.to_owned()),
        ])
    }

    fn ticks(&self, arm: usize) -> u64 {
        if arm < AFFINE.len() { SPANS as u64 } else { 1 }
    }

    fn unit(&self, arm: usize, seed: u64, _: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
        let norms = [NormConfig::layer(), NormConfig::rms(), NormConfig::batch()];
        Ok(match AFFINE.get(arm) {
            Some(&affine) => {
                let mut student = students::Student::new(CARD.name, affine, seed);
                steps(SPANS, move |_, measured| student.learn(self.updates / SPANS, measured))
            }
            None => {
                let norm = norms[arm - AFFINE.len()].clone();
                steps(1, move |_, measured| undo::measure(&norm, CARD.name, seed, measured))
            }
        })
    }

    fn figures(&self, all: &Results) -> Vec<Figure> {
        vec![
            Figure::Images(lights()),
            Figure::Lines(LineChart {
                title: "What the best gain and bias restore".to_owned(),
                caption: "How far the restored input is from the input, in standard deviations of the input. At 0 all \
                          inputs have one mean and one variance; at 1 their standard deviations lie between half and \
                          double, and their means within ±1. Batch norm in inference is one multiplication and one \
                          addition, so it can be undone at any point, up to rounding."
                    .to_owned(),
                x: Axis::linear("how much inputs differ in mean and scale, octaves"),
                y: Axis::linear("what is lost"),
                series: CARD.arms[3..].iter().map(|arm| all.series(arm, "undone", 1.0)).collect(),
            }),
            Figure::Lines(LineChart {
                title: "Imitating a teacher".to_owned(),
                caption: "The student's error, as a part of the variance of the teacher's outputs. Lines are means over \
                          seeds, bands reach from the lowest to the highest seed."
                    .to_owned(),
                x: Axis::linear("updates"),
                y: Axis::log("error"),
                series: CARD.arms[..3].iter().map(|arm| all.series(arm, "loss", 1.0)).collect(),
            }),
        ]
    }

    fn notes(&self) -> Vec<String> {
        [
            "The teacher is a network of the student's own shape, whose layer norm has gains between a quarter and 4 and \
             biases of about ±1. All students of a seed start from the same weights, which are not the teacher's.",
            "Gain and bias act where a nonlinearity follows. Where a linear layer follows at once, its weights can do \
             their work, and they add nothing.",
            "The best gain and bias are computed for each unit by least squares, so no training can find better ones.",
            "Chosen after a first look: 8000 updates for 1000, which changed no verdict. No rule was changed.",
        ]
        .map(str::to_owned)
        .into()
    }
}

/// One picture in three lights: what layer norm forgets.
fn lights() -> ImageGrid {
    // The best gain and bias come from many pictures, each in three lights; the first is shown.
    let images = draw(Part::Train, Paper::Clean, 200);
    let columns = images.columns;
    let light = |index: usize, strength: f32| {
        images.picture(index).iter().map(|&p| strength * f32::from(p) / 255.0).collect::<Vec<f32>>()
    };
    let all: Vec<Vec<f32>> =
        (0..images.len()).flat_map(|index| [0.25, 0.5, 1.0].map(|strength| light(index, strength))).collect();
    let pictures = &all[..3];
    let [(layer, no_layer), (batch, no_batch)] = [NormConfig::layer(), NormConfig::batch()].map(|norm| {
        let normalized = undo::normalized(&norm, &all);
        let undone = undo::Undo::best(&normalized, &all).apply(&normalized[..3]);
        (normalized[..3].to_vec(), undone)
    });
    let row = |label: &str, pictures: &[Vec<f32>], signed: bool| {
        let image = |picture: &Vec<f32>| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to a byte's range"
            )]
            let pixels: Vec<u8> = picture.iter().map(|p| (255.0 * p.clamp(0.0, 1.0)).round() as u8).collect();
            if signed {
                picture::signed(columns, picture, 3.0, label)
            } else {
                picture::ink(columns, &pixels, label)
            }
        };
        ImageRow { label: label.to_owned(), images: pictures.iter().map(image).collect() }
    };
    ImageGrid {
        title: "Can it be undone?".to_owned(),
        caption: "One picture in three lights. Layer norm makes the three the same, on purpose; then no gain and bias can \
                  tell them apart again. Batch norm in inference applies one formula to all pictures, and the right \
                  gain and bias take it back. Gain and bias are the best ones for 200 pictures in these three lights."
            .to_owned(),
        columns: ["dim", "half", "bright"].map(str::to_owned).to_vec(),
        rows: vec![
            row("the picture", pictures, false),
            row("after layer norm", &layer, true),
            row("undone as well as can be", &no_layer, false),
            row("after batch norm in inference", &batch, true),
            row("undone", &no_batch, false),
        ],
    }
}
