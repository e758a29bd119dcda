//! One picture is normalized again and again while the other pictures of its batch change.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use crate::data::digits::{Paper, Part, draw};
use crate::data::{self, Images, Split};
use crate::models::norm::{EPSILON, Norm, NormKind};
use crate::report::model::{Axis, Figure, Image, ImageGrid, ImageRow, LineChart, Measured, Table, Tone};
use crate::report::picture;
use crate::rng::{Purpose, Rng};
use crate::study::{Arm, Card, Claim, Error, Plan, Request, Results, Rule, Study, Unit, settings, steps};

/// The study.
#[derive(Debug)]
pub struct Neighbours;

static CARD: Card = Card {
    name: "neighbours",
    title: "One picture, many neighbours",
    question: "A picture is normalized in a batch with others. Then the others are exchanged, and it is normalized \
               again. Does it come out the same?",
    metric: "the picture's numbers after normalization, compared bit by bit",
    arms: &[
        Arm { name: "ln", label: "layer norm", tone: Tone::Layer },
        Arm { name: "rms", label: "RMS norm", tone: Tone::Rms },
        Arm { name: "bn", label: "batch norm", tone: Tone::Batch },
        Arm { name: "burn", label: "Burn's layer norm", tone: Tone::Plain },
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
    ],
    takes: ["seconds", "a minute", "ten minutes"],
    seeds: [5, 10, 20],
    real_data: true,
};

const KINDS: [NormKind; 4] = [NormKind::Layer, NormKind::Rms, NormKind::Batch, NormKind::BurnLayer];
const BATCHES: [usize; 8] = [2, 4, 8, 16, 32, 64, 128, 256];
/// The batch size that claim M3 speaks of.
const BATCH_OF_CLAIM: f64 = 32.0;

impl Study for Neighbours {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error> {
        let trials = request.budget.pick([20, 200, 2000], 2);
        let data = data::digits(request.data.as_deref(), 2000, 0)?;
        Ok(Box::new(NeighboursPlan { trials, data }))
    }
}

struct NeighboursPlan {
    /// Exchanges of neighbours for each batch size.
    trials: usize,
    data: Split,
}

impl Plan for NeighboursPlan {
    fn settings(&self) -> BTreeMap<String, String> {
        settings([
            ("data", self.data.source.clone()),
            ("exchanges", format!("{} for each of the batch sizes {BATCHES:?}", self.trials)),
            ("epsilon", format!("{EPSILON:e}")),
        ])
    }

    fn ticks(&self, _: usize) -> u64 {
        BATCHES.len() as u64
    }

    fn unit(&self, arm: usize, seed: u64, _: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
        let mut exchange = Exchange::new(self, KINDS[arm], seed);
        Ok(steps(BATCHES.len(), move |step, measured| exchange.at(BATCHES[step], measured)))
    }

    fn figures(&self, all: &Results) -> Vec<Figure> {
        vec![Figure::Images(ghosts(&self.clean())), Figure::Lines(movement(all)), Figure::Table(counts(all))]
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

/// One arm with one seed: a picture, and neighbours that come and go.
struct Exchange<'a> {
    plan: &'a NeighboursPlan,
    training: Norm,
    device: Device,
    rng: Rng,
    picture: usize,
    /// The picture normalized without neighbours.
    alone: Vec<f32>,
}

impl<'a> Exchange<'a> {
    fn new(plan: &'a NeighboursPlan, kind: NormKind, seed: u64) -> Self {
        let mut rng = Rng::new(seed, Purpose::Neighbours, 0);
        let picture = rng.below(u32::try_from(plan.data.train.len()).expect("few pictures")) as usize;
        let device = Device::flex().autodiff();
        let training = Norm::new(kind, plan.data.train.size(), &device);
        let alone = normalized(&training, &device, &plan.data.train, &[picture], 0);
        Self { plan, training, device, rng, picture, alone }
    }

    /// Exchanges the neighbours in batches of this size.
    fn at(&mut self, batch: usize, measured: &mut Measured) {
        let mut total = 0.0;
        for _ in 0..self.plan.trials {
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
        measured.point("moved", batch as f64, total / self.plan.trials as f64);
    }

    /// The picture after normalization in a batch with random others, at a random place, in training and inference.
    fn in_company(&mut self, batch: usize) -> [Vec<f32>; 2] {
        let images = &self.plan.data.train;
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
fn normalized(norm: &Norm, device: &Device, images: &Images, members: &[usize], place: usize) -> Vec<f32> {
    let pixels: Vec<f32> =
        members.iter().flat_map(|&index| images.picture(index)).map(|&p| f32::from(p) / 255.0).collect();
    let x = Tensor::<2>::from_data(TensorData::new(pixels, [members.len(), images.size()]), device);
    let y = norm.forward(x).into_data().try_into_vec::<f32>().expect("f32 in, f32 out");
    y[place * images.size()..][..images.size()].to_vec()
}

/// How many numbers differ in any bit.
fn differing(a: &[f32], b: &[f32]) -> usize {
    a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count()
}

fn root_mean_square(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    (values.map(|v| v * v).sum::<f64>() / count).sqrt()
}

/// The picture of the study: one digit in three batches of eight.
fn ghosts(images: &Images) -> ImageGrid {
    const NEIGHBOURS: usize = 7;
    let batches: [Vec<usize>; 3] = std::array::from_fn(|b| {
        std::iter::once(0).chain(1 + b * NEIGHBOURS..1 + (b + 1) * NEIGHBOURS).collect()
    });
    let after = |kind| {
        let device = Device::flex().autodiff();
        let norm = Norm::new(kind, images.size(), &device);
        batches.each_ref().map(|members| normalized(&norm, &device, images, members, 0))
    };
    let (batch, layer) = (after(NormKind::Batch), after(NormKind::Layer));
    let row = |label: &str, images: Vec<Image>| ImageRow { label: label.to_owned(), images };
    let show = |outputs: &[Vec<f32>; 3], method: &str| {
        let image =
            |y: &Vec<f32>| picture::signed(images.columns, y, 3.0, &format!("the picture after {method}"));
        outputs.iter().map(image).collect()
    };
    let change = |outputs: &[Vec<f32>; 3], method: &str| {
        let image = |y: &Vec<f32>| {
            let moved: Vec<f32> = y.iter().zip(&outputs[0]).map(|(now, first)| now - first).collect();
            let alt = format!("what moved after {method}, against batch A");
            let note = match differing(y, &outputs[0]) {
                0 => "no bit differs".to_owned(),
                count => format!("{count} of {} differ", y.len()),
            };
            Image { note, ..picture::signed(images.columns, &moved, 3.0, &alt) }
        };
        outputs.iter().map(image).collect()
    };
    let neighbours = batches.iter().map(|members| strip(images, &members[1..])).collect();
    let itself =
        batches.iter().map(|_| picture::ink(images.columns, images.picture(0), "the picture")).collect();
    ImageGrid {
        title: "The same picture in three batches".to_owned(),
        caption: "Each column is one batch: the picture and seven others. Blue is above zero, orange below. Batch norm \
                  compares each pixel with the same pixel of the neighbours, so their strokes show through as ghosts, \
                  and the result moves with them. Layer norm compares the picture with itself."
            .to_owned(),
        columns: ["batch A", "batch B", "batch C"].map(str::to_owned).to_vec(),
        rows: vec![
            row("its neighbours", neighbours),
            row("the picture", itself),
            row("after batch norm", show(&batch, "batch norm")),
            row("batch norm, moved since A", change(&batch, "batch norm")),
            row("after layer norm", show(&layer, "layer norm")),
            row("layer norm, moved since A", change(&layer, "layer norm")),
        ],
    }
}

/// Pictures side by side, as one.
fn strip(images: &Images, members: &[usize]) -> Image {
    let line = |row: usize| {
        members
            .iter()
            .flat_map(move |&index| images.picture(index)[row * images.columns..][..images.columns].to_vec())
    };
    let pixels: Vec<u8> = (0..images.rows).flat_map(line).collect();
    picture::ink(members.len() * images.columns, &pixels, "the picture's neighbours")
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
    let rows = CARD.arms.iter().map(|arm| {
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
