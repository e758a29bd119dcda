//! One picture and the other pictures of its batch: does it matter who they are? Asked of norms alone, of a trained
//! classifier, and of the whole family.

mod classifier;
mod exchange;
mod ghosts;
mod questions;

use std::collections::BTreeMap;

use crate::data::digits::{Paper, Part, draw};
use crate::data::{self, Images, Split};
use crate::models::norm::{EPSILON, NormKind};
use crate::report::model::{Axis, Cell, Figure, LineChart, Matrix, MatrixRow, Series, Table, Tone};
use crate::study::{Arm, Card, Claim, Error, Plan, Request, Results, Rule, Study, Unit, settings, steps};
use exchange::Exchange;
use questions::{Method, QUESTIONS};

/// The study.
#[derive(Debug)]
pub struct Neighbours;

static CARD: Card = Card {
    name: "neighbours",
    title: "One picture, many neighbours",
    question: "A picture is normalized in a batch with others. Then the others are exchanged, and it is normalized \
               again. Does it come out the same? And does a trained network still give the same answer?",
    metric: "a picture's numbers after normalization, compared bit by bit, and a classifier's answers",
    arms: &[
        Arm { name: "ln", label: "layer norm", tone: Tone::Layer },
        Arm { name: "rms", label: "RMS norm", tone: Tone::Rms },
        Arm { name: "bn", label: "batch norm", tone: Tone::Batch },
        Arm { name: "burn", label: "Burn's layer norm", tone: Tone::Plain },
        Arm { name: "partial", label: "partial RMS norm", tone: Tone::Partial },
        Arm { name: "group", label: "group norm", tone: Tone::Group },
        Arm { name: "instance", label: "instance norm", tone: Tone::Instance },
        Arm { name: "scale", label: "scale norm", tone: Tone::Scale },
        Arm { name: "weight", label: "weight norm", tone: Tone::Weight },
    ],
    claims: &[
        Claim {
            id: "M1",
            says: "With layer norm nothing depends on the batch; a batch of one works as well as any.",
            source: "Ba, Kiros, Hinton 2016, section 3",
            measure: "numbers out of layer norm whose bits differ from those of the picture alone, over all batches",
            effect: |seed| seed.value("ln", "differ from alone"),
            unit: "differing numbers",
            rule: Rule::Never,
        },
        Claim {
            id: "M2",
            says: "With layer norm training and inference compute the same thing.",
            source: "Ba, Kiros, Hinton 2016, section 3",
            measure: "numbers out of layer norm whose bits differ between training and inference, over all batches",
            effect: |seed| seed.value("ln", "differ in inference"),
            unit: "differing numbers",
            rule: Rule::Never,
        },
        Claim {
            id: "M3",
            says: "With batch norm the same picture comes out different in other company; with layer norm it doesn't.",
            source: "folklore of textbooks",
            measure: "how far the picture's numbers move (root mean square) when its 31 neighbours are exchanged, \
                      batch norm less layer norm",
            effect: |seed| seed.at("bn", "moved", BATCH_OF_CLAIM) - seed.at("ln", "moved", BATCH_OF_CLAIM),
            unit: "standard deviations of movement",
            rule: Rule::Exceeds(0.01),
        },
        Claim {
            id: "M2",
            says: "A network trained with batch norm gives other answers in training mode than in inference; one with \
                   layer norm doesn't.",
            source: "Ba, Kiros, Hinton 2016, section 3",
            measure: "share of answers of a trained classifier, in batches of 32, that differ between training mode \
                      and inference, batch norm less layer norm",
            effect: |seed| {
                let share = |arm| {
                    seed.value(arm, "answers changed between modes") / seed.value(arm, "modes compared")
                };
                100.0 * (share("bn") - share("ln"))
            },
            unit: "points of answers",
            rule: Rule::Exceeds(1.0),
        },
        Claim {
            id: "S1",
            says: "With layer norm one user's answer does not change because of other users' requests.",
            source: "folklore of serving",
            measure: "answers of a trained classifier with layer norm that change when the 31 neighbours are exchanged, \
                      in training mode and in inference",
            effect: |seed| {
                seed.value("ln", "answers changed in training")
                    + seed.value("ln", "answers changed in inference")
            },
            unit: "changed answers",
            rule: Rule::Never,
        },
        Claim {
            id: "S5",
            says: "Asked whether training differs from inference, whether the batch matters and whether there is hidden \
                   state, layer norm answers no three times.",
            source: "folklore of serving",
            measure: "questions to which layer norm's bits answer yes",
            effect: |seed| seed.value("ln", "yes"),
            unit: "yeses",
            rule: Rule::Never,
        },
    ],
    takes: ["seconds", "a minute", "ten minutes"],
    seeds: [5, 10, 20],
    real_data: true,
};

/// The methods, in the order of the arms; the first four take part in all experiments.
const METHODS: [Method; 9] = [
    Method::Features(NormKind::Layer),
    Method::Features(NormKind::Rms),
    Method::Features(NormKind::Batch),
    Method::Features(NormKind::BurnLayer),
    Method::Partial,
    Method::Group,
    Method::Instance,
    Method::Scale,
    Method::Weight,
];
const BATCHES: [usize; 8] = [2, 4, 8, 16, 32, 64, 128, 256];
/// The batch size that claim M3 speaks of.
const BATCH_OF_CLAIM: f64 = 32.0;

impl Study for Neighbours {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error> {
        let trials = request.budget.pick([20, 200, 2000], 2);
        let pictures = request.budget.pick([40, 200, 1000], 2);
        let data = data::digits(request.data.as_deref(), 2000, 1000)?;
        Ok(Box::new(NeighboursPlan { trials, pictures, data }))
    }
}

struct NeighboursPlan {
    /// Exchanges of neighbours for each batch size.
    trials: usize,
    /// Pictures that the classifier is asked.
    pictures: usize,
    data: Split,
}

/// What a unit does, step by step.
#[derive(Clone, Copy)]
enum Step {
    Ask,
    Classify,
    Exchange(usize),
}

/// The steps of an arm.
fn parts(arm: usize) -> Vec<Step> {
    let Method::Features(kind) = METHODS[arm] else { return vec![Step::Ask] };
    let classify = if kind == NormKind::BurnLayer { None } else { Some(Step::Classify) };
    std::iter::once(Step::Ask).chain(classify).chain(BATCHES.map(Step::Exchange)).collect()
}

impl Plan for NeighboursPlan {
    fn settings(&self) -> BTreeMap<String, String> {
        settings([
            ("data", self.data.source.clone()),
            ("exchanges", format!("{} for each of the batch sizes {BATCHES:?}", self.trials)),
            (
                "classifier",
                format!("784-64-64-10, ReLU, Adam at 1e-3, 3 epochs; {} pictures asked", self.pictures),
            ),
            ("epsilon", format!("{EPSILON:e}")),
        ])
    }

    fn ticks(&self, arm: usize) -> u64 {
        parts(arm).len() as u64
    }

    fn unit(&self, arm: usize, seed: u64, _: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
        let (parts, method, images) = (parts(arm), METHODS[arm], &self.data.train);
        let mut exchange = match method {
            Method::Features(kind) => Some((kind, Exchange::new(images, self.trials, kind, seed))),
            _ => None,
        };
        Ok(steps(parts.len(), move |step, measured| match (parts[step], &mut exchange) {
            (Step::Exchange(batch), Some((_, exchange))) => exchange.at(batch, measured),
            (Step::Classify, Some((kind, _))) => {
                classifier::read(*kind, &self.data, self.pictures, seed, measured);
            }
            _ => questions::ask(method, images, seed, measured),
        }))
    }

    fn figures(&self, all: &Results) -> Vec<Figure> {
        vec![
            Figure::Images(ghosts::ghosts(&self.clean())),
            Figure::Lines(movement(all)),
            Figure::Lines(one_picture(all)),
            Figure::Table(answers(all)),
            Figure::Matrix(family(all)),
            Figure::Table(counts(all)),
        ]
    }

    fn notes(&self) -> Vec<String> {
        vec![
            "Batch norm is in training mode where it says so, with running statistics (momentum 0.1, unbiased variance, as \
             in PyTorch) in inference. Layer norm and RMS norm are this project's kernels."
                .to_owned(),
            "Burn's layer norm takes another way through its operations when gradients are recorded, so its last bits \
             differ between training and inference. That is rounding, not batch norm's change of meaning."
                .to_owned(),
            "In a batch of one, batch norm's variance is 0, and every number comes out as its bias: there is nothing \
             to compare, so its batches begin at two."
                .to_owned(),
        ]
    }
}

impl NeighboursPlan {
    /// Pictures for looking at: drawn ones without specks, or the user's own, which have none.
    fn clean(&self) -> Images {
        let drawn = self.data.source.starts_with("digits drawn");
        if drawn { draw(Part::Train, Paper::Clean, 40) } else { self.data.train.clone().first(40) }
    }
}

fn movement(all: &Results) -> LineChart {
    LineChart {
        title: "How far the picture moves when its neighbours change".to_owned(),
        caption: "Root mean square over its 784 numbers, in standard deviations; the mean over exchanges, with the \
                  lowest and highest seed. Larger batches calm batch norm without stilling it. Layer norm and RMS norm \
                  lie on zero."
            .to_owned(),
        x: Axis::log("batch size"),
        y: Axis::linear("movement"),
        series: CARD.arms.iter().take(3).rev().map(|arm| all.series(arm, "moved", 1.0)).collect(),
    }
}

fn counts(all: &Results) -> Table {
    let total = |arm: &Arm, name: &str| all.values(arm.name, name).iter().sum::<f64>();
    let share = |arm: &Arm, part: &str, whole: &str| {
        let percent = 100.0 * total(arm, part) / total(arm, whole);
        let digits = if percent == 0.0 || percent == 100.0 { 0 } else { 1 };
        format!("{} ({percent:.digits$}%)", total(arm, part))
    };
    let rows = CARD.arms.iter().take(4).map(|arm| {
        vec![
            arm.label.to_owned(),
            share(arm, "differ from alone", "compared with alone"),
            share(arm, "differ in inference", "compared with inference"),
        ]
    });
    let caption = format!(
        "Over all seeds, batch sizes and exchanges: {} numbers against the picture alone, {} against inference.",
        total(&CARD.arms[0], "compared with alone"),
        total(&CARD.arms[0], "compared with inference"),
    );
    let columns = ["method", "in company, against alone", "in training, against inference"];
    Table::new("Numbers whose bits differ", &caption, &columns, rows.collect())
}

/// The probability of the right digit while the neighbours change.
fn one_picture(all: &Results) -> LineChart {
    let series = CARD.arms[..3].iter().rev().flat_map(|arm| {
        ["training mode", "inference"].map(|mode| {
            let plain = if mode == "inference" { Tone::Plain } else { arm.tone };
            let tone = if arm.name == "bn" { plain } else { arm.tone };
            Series { label: format!("{}, {mode}", arm.label), ..all.line("", tone, arm.name, mode) }
        })
    });
    let keep = |series: &Series| series.label.starts_with("batch") || series.label.ends_with("training mode");
    LineChart {
        title: "One picture's answer while its neighbours change".to_owned(),
        caption: "The probability that a trained classifier gives to the right digit, in eight batches that differ in the \
                  other 31 pictures; for each method and seed the picture that moves most. Lines are means over seeds, \
                  bands reach from the lowest to the highest seed. In inference batch norm stands still as well: it has \
                  another way to compute there."
            .to_owned(),
        x: Axis::linear("batch"),
        y: Axis::linear("probability of the right digit, %"),
        series: series.filter(keep).collect(),
    }
}

/// How often the classifier changes its mind.
fn answers(all: &Results) -> Table {
    let share = |arm: &Arm, part: &str, whole: &str| {
        let total = |name: &str| all.values(arm.name, name).iter().sum::<f64>();
        format!("{:.1}%", 100.0 * total(part) / total(whole))
    };
    let rows = CARD.arms[..3].iter().map(|arm| {
        vec![
            arm.label.to_owned(),
            share(arm, "answers changed in training", "answers compared"),
            share(arm, "answers changed in inference", "answers compared"),
            share(arm, "answers changed between modes", "modes compared"),
            all.values(arm.name, "numbers moved in inference").iter().sum::<f64>().to_string(),
        ]
    });
    Table::new(
        "Answers that change",
        "Of a trained classifier: when the neighbours are exchanged, in either mode, and between the modes. The last \
         column counts the probabilities of which any bit moved in inference.",
        &["method", "in training mode", "in inference", "between the modes", "numbers moved"],
        rows.collect(),
    )
}

/// The three questions to the whole family.
fn family(all: &Results) -> Matrix {
    let cell = |arm: &Arm, question: &str| {
        let yes = all.values(arm.name, question).iter().any(|&yes| yes > 0.0);
        if yes { Cell::new("yes", -1.0) } else { Cell::new("no", 1.0) }
    };
    let row =
        |arm: &Arm| MatrixRow::new(arm.label, QUESTIONS.iter().map(|question| cell(arm, question)).collect());
    Matrix::new(
        "Three questions to every method",
        "Measured, not looked up: yes where any bit differed in any seed. Group and instance norm take a picture's lines \
         for channels; weight norm works on the weights of a linear map.",
        &["training differs from inference", "the neighbours matter", "earlier batches matter"],
        CARD.arms.iter().map(row).collect(),
    )
}
