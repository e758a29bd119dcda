//! The picture of the study: one digit in three batches.

use burn::tensor::Device;

use super::exchange::{differing, normalized};
use crate::data::Images;
use crate::models::norm::{Norm, NormKind};
use crate::report::model::{Image, ImageGrid, ImageRow};
use crate::report::picture;

/// One digit in three batches of eight.
pub fn ghosts(images: &Images) -> ImageGrid {
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
