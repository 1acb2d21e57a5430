//! Which models are on a device when: by what their weights take, the device's limits and a budget.

use std::iter::successors;

use burn::tensor::Device;

use super::blank::SAFETY_CHECKER;
use super::needs::both;
use crate::error::{Error, Result};
use crate::models::WeightDtype;

/// Bytes of a device's memory that the weights of one model take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartNeeds {
    /// The component, e.g. `unet`.
    pub component: &'static str,
    /// All of its weights.
    pub bytes: u64,
    /// The largest of them, which is one buffer.
    pub largest: u64,
}

/// What a device has room for, as far as anybody knows: WebGPU does not tell how much memory there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Bytes of the largest buffer that a shader sees whole: the smaller of WebGPU's `maxBufferSize` and
    /// `maxStorageBufferBindingSize`.
    pub largest_buffer: Option<u64>,
    /// Bytes that all weights may take together.
    pub budget: Option<u64>,
}

impl Room {
    /// Of a device, without a budget.
    pub fn of(device: &Device) -> Self {
        #[cfg(feature = "wgpu")]
        let largest_buffer = crate::kernels::largest_buffer(device);
        #[cfg(not(feature = "wgpu"))]
        let (largest_buffer, _) = (None, device);
        Self { largest_buffer, budget: None }
    }

    fn has(self, part: &PartNeeds) -> bool {
        self.largest_buffer.is_none_or(|most| part.largest <= most)
    }
}

/// Bytes of a device's memory that a model's weights take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryNeeds {
    /// All models at once.
    pub all: u64,
    /// Models in their turn: the largest of UNet, VAE and text encoders, and the safety checker, which stays.
    pub in_turn: u64,
}

impl MemoryNeeds {
    /// Of models together.
    pub(super) fn of(parts: &[PartNeeds]) -> Self {
        let mut needs = Self::default();
        let (mut texts, mut checker) = (0, 0);
        for PartNeeds { component, bytes, .. } in parts {
            needs.all += bytes;
            match *component {
                SAFETY_CHECKER => checker += bytes,
                "vae" | "unet" => needs.in_turn = needs.in_turn.max(*bytes),
                _ => texts += bytes,
            }
        }
        needs.in_turn = needs.in_turn.max(texts) + checker;
        needs
    }

    /// Whether models have to take turns so that their weights stay within `budget` bytes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when they do not even then.
    pub fn take_turns(self, budget: u64) -> Result<bool> {
        match (self.all <= budget, self.in_turn <= budget) {
            (true, _) => Ok(false),
            (false, true) => Ok(true),
            (false, false) => Err(Error::argument(
                "memoryBudget",
                format!(
                    "{budget} bytes; the weights of this model take {} at least, one model at a time",
                    self.in_turn
                ),
            )),
        }
    }
}

/// Which models are on a device when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residency {
    /// The models.
    pub parts: Vec<PartNeeds>,
    /// What they take.
    pub needs: MemoryNeeds,
    /// Whether they take turns.
    pub in_turn: bool,
}

impl Residency {
    /// Plans for models that are `parts` with weights of a type, of which `weights` was asked for. All of them are on the
    /// device at once unless the budget has them take turns; what WebGPU tells of a device's limits is about
    /// single buffers, and says no more than whether they can be there at all.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a weight that no buffer of the device can hold, [`Error::InvalidArgument`] for a budget
    /// that is too small.
    pub fn plan(
        weights: WeightDtype,
        parts: &mut dyn FnMut(WeightDtype) -> Vec<PartNeeds>,
        room: Room,
    ) -> Result<Self> {
        let asked = parts(weights);
        if let Some(most) = room.largest_buffer
            && let Some(part) = asked.iter().find(|part| !room.has(part))
        {
            let smaller = successors(weights.smaller(), |dtype| dtype.smaller())
                .find(|dtype| parts(*dtype).iter().all(|part| room.has(part)));
            let advice = match smaller {
                Some(dtype) => format!("`weightDtype: '{}'` needs no larger ones", dtype.name()),
                None => "take a smaller model, or another GPU or browser".to_owned(),
            };
            return Err(Error::unsupported(format!(
                "{} on this GPU: a weight takes {} in {}, and its buffers hold {} at most; {advice}",
                part.component,
                both(part.largest),
                weights.name(),
                both(most),
            )));
        }
        let needs = MemoryNeeds::of(&asked);
        let in_turn = room.budget.map_or(Ok(false), |budget| needs.take_turns(budget))?;
        Ok(Self { parts: asked, needs, in_turn })
    }

    /// The most bytes that the weights take at a time.
    pub fn most(&self) -> u64 {
        if self.in_turn { self.needs.in_turn } else { self.needs.all }
    }

    /// Whether a component is there between the turns of others.
    pub fn stays(&self, component: &str) -> bool {
        !self.in_turn || component == SAFETY_CHECKER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the sizes of Stable Diffusion 1.5, but round.
    fn parts(weights: WeightDtype) -> Vec<PartNeeds> {
        let wide = if weights == WeightDtype::F32 { 2 } else { 1 };
        let part = |component, bytes: u64, largest: u64| PartNeeds {
            component,
            bytes: bytes * wide,
            largest: largest * wide,
        };
        vec![
            part("text_encoder", 246, 76),
            part("vae", 167, 5),
            part("unet", 1719, 59),
            part(SAFETY_CHECKER, 608, 8),
        ]
    }

    fn plan(weights: WeightDtype, room: Room) -> Result<Residency> {
        Residency::plan(weights, &mut parts, room)
    }

    #[test]
    fn models_stay_unless_the_budget_is_too_small_for_all() {
        let within = |budget| plan(WeightDtype::F16, Room { budget, largest_buffer: Some(76) });
        for budget in [None, Some(2740)] {
            let all = within(budget).expect("room");
            assert_eq!((all.in_turn, all.most()), (false, 2740));
            assert!(all.parts.iter().all(|part| all.stays(part.component)));
        }
        for budget in [2739, 2327] {
            let turns = within(Some(budget)).expect("room for one at a time");
            assert_eq!((turns.in_turn, turns.most()), (true, 2327));
            let stay = turns.parts.iter().filter(|part| turns.stays(part.component));
            assert_eq!(stay.map(|part| part.component).collect::<Vec<_>>(), [SAFETY_CHECKER]);
        }
        let error = within(Some(2326)).expect_err("too small");
        assert_eq!(error.code(), "invalid-argument");
        assert!(error.to_string().contains("take 2327 at least"), "{error}");
    }

    #[test]
    fn a_weight_that_no_buffer_can_hold_is_refused_and_a_type_that_fits_is_named() {
        let refused = |weights, largest_buffer| {
            let room = Room { largest_buffer: Some(largest_buffer), budget: Some(0) };
            let error = plan(weights, room).expect_err("too small");
            // Before the budget: none would help.
            assert_eq!(error.code(), "unsupported");
            error.to_string()
        };
        let text = refused(WeightDtype::F32, 151);
        assert!(text.contains("text_encoder on this GPU"), "{text}");
        assert!(text.contains("(152 bytes) in float32, and its buffers hold"), "{text}");
        assert!(text.contains("(151 bytes) at most; `weightDtype: 'float16'` needs"), "{text}");
        for (weights, most) in [(WeightDtype::F32, 75), (WeightDtype::I4, 75)] {
            let text = refused(weights, most);
            assert!(!text.contains("weightDtype"), "{text}");
            assert!(text.contains("a smaller model"), "{text}");
        }
        for room in [Some(152), None] {
            let room = Room { largest_buffer: room, budget: None };
            assert_eq!(plan(WeightDtype::F32, room).expect("room").most(), 5480);
        }
    }
}
