//! What a device that runs out of memory was asked for, and what smaller choice there is.

use super::{EditRequest, Images, MemoryChoice, MemoryNeeds};
use crate::cache::bytes_text;

/// Bytes for people, and exactly.
pub(super) fn both(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", bytes_text(bytes))
}

/// What an edit asks of a device's memory that held `before` bytes when it began, and `taken` in the
/// end.
pub fn asked_of_edit(
    request: &EditRequest,
    takes_turns: bool,
    [before, taken]: [u64; 2],
) -> String {
    let size = match &request.images {
        Images::Pictures(pictures) => pictures.first().map_or_else(String::new, |picture| {
            format!(" of {} x {}", picture.width, picture.height)
        }),
        _ => String::new(),
    };
    let results = match request.text.num_images_per_prompt {
        1 => "1 result".to_owned(),
        many => format!("{many} results"),
    };
    let own = taken.saturating_sub(before);
    let turns = match takes_turns {
        true => "",
        false => "; loaded with `memoryBudget`, models take turns and leave more room",
    };
    format!(
        "{} of GPU memory, on top of the {} that were held before, for an edit{size}, {results} \
         for a prompt; one result, a picture of half the size (a quarter of the memory, about \
         {}), enableVaeTiling() and enableVaeSlicing() need less{turns}",
        both(own),
        both(before),
        bytes_text(own / 4),
    )
}

/// What loading a model asks of a device's memory, with models in turn or all at once.
pub fn asked_of_load(choice: &MemoryChoice, in_turn: bool) -> String {
    let MemoryChoice { weights, asked, smaller } = *choice;
    let of = |needs: MemoryNeeds| if in_turn { needs.in_turn } else { needs.all };
    let other = match smaller {
        None => ", which is the smallest type there is".to_owned(),
        Some((dtype, needs)) if of(needs) < of(asked) => {
            format!("; `weightDtype: '{}'` needs {}", dtype.name(), both(of(needs)))
        }
        // A model without a weight that could be kept in integers.
        Some(_) => String::new(),
    };
    let least = asked.in_turn;
    let turns = match in_turn || least >= asked.all {
        true => String::new(),
        false => format!(
            "; with `memoryBudget: {least}` the models take turns and need {} at a time",
            bytes_text(least)
        ),
    };
    format!(
        "{} of weights in {}{other}{turns}; a smaller model, or closing other pages that use the GPU, \
         may help",
        both(of(asked)),
        weights.name(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::RgbImage;
    use crate::models::WeightDtype;

    #[test]
    fn an_edit_says_how_much_it_took_and_what_takes_less() {
        let picture = RgbImage::new(24, 16, vec![0; 24 * 16 * 3]).expect("valid");
        let request =
            EditRequest { images: Images::Pictures(vec![picture]), ..EditRequest::default() };
        let text = asked_of_edit(&request, false, [2_000_000_000, 5_200_000_000]);
        assert!(text.starts_with("3.2 GB (3200000000 bytes) of GPU memory"), "{text}");
        assert!(text.contains("2.0 GB (2000000000 bytes) that were held before"), "{text}");
        assert!(text.contains("an edit of 24 x 16, 1 result for"), "{text}");
        assert!(text.contains("half the size (a quarter of the memory, about 800.0 MB)"), "{text}");
        assert!(text.contains("memoryBudget"), "{text}");
        assert!(!asked_of_edit(&request, true, [0, 1]).contains("memoryBudget"));
    }

    #[test]
    fn a_load_says_how_much_it_takes_and_what_takes_less() {
        let asked = MemoryNeeds { all: 2_134_000_000, in_turn: 1_719_000_000 };
        let less = MemoryNeeds { all: 1_234_000_000, in_turn: 912_000_000 };
        let choice = |weights: WeightDtype| MemoryChoice {
            weights,
            asked,
            smaller: weights.smaller().map(|dtype| (dtype, less)),
        };
        let text = asked_of_load(&choice(WeightDtype::F32), false);
        assert!(text.contains("2.1 GB (2134000000 bytes) of weights in float32"), "{text}");
        assert!(
            text.contains("`weightDtype: 'float16'` needs 1.2 GB (1234000000 bytes)"),
            "{text}"
        );
        assert!(text.contains("memoryBudget: 1719000000"), "{text}");
        let text = asked_of_load(&choice(WeightDtype::F16), true);
        assert!(text.contains("1.7 GB (1719000000 bytes) of weights in float16"), "{text}");
        assert!(text.contains("`weightDtype: 'int8'` needs 912.0 MB (912000000 bytes)"), "{text}");
        assert!(!text.contains("memoryBudget"), "{text}");
        let text = asked_of_load(&choice(WeightDtype::I4), false);
        assert!(text.contains("int4, which is the smallest"), "{text}");
        assert!(!text.contains("weightDtype"), "{text}");
        let same =
            MemoryChoice { smaller: Some((WeightDtype::I8, asked)), ..choice(WeightDtype::F16) };
        assert!(!asked_of_load(&same, false).contains("weightDtype"), "it would be of no use");
    }
}
