//! What every scheduler keeps while it steps: its table, its place in it, and earlier tensors.

use std::collections::VecDeque;

use burn::tensor::Tensor;

use super::StepInput;
use crate::error::{Error, Result};

/// The table of one run and the place in it.
#[derive(Debug)]
pub struct Table {
    timesteps: Vec<f64>,
    sigmas: Vec<f64>,
    init_noise_sigma: f64,
    next: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new(), 1.0)
    }
}

impl Table {
    pub(super) fn new(timesteps: Vec<f64>, sigmas: Vec<f64>, init_noise_sigma: f64) -> Self {
        Self { timesteps, sigmas, init_noise_sigma, next: 0 }
    }

    /// A table without noise levels.
    pub(super) fn of_timesteps(timesteps: Vec<f64>) -> Self {
        Self::new(timesteps, Vec::new(), 1.0)
    }

    /// The timesteps to call the model with, in order.
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// The noise levels, if the class has any.
    pub fn sigmas(&self) -> &[f64] {
        &self.sigmas
    }

    /// The factor for the initial noise.
    pub fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    /// The index of the coming step.
    pub fn next_index(&self) -> usize {
        self.next
    }

    /// How many steps there are.
    pub(super) fn len(&self) -> usize {
        self.timesteps.len()
    }

    /// The whole timestep at an index.
    pub(super) fn timestep(&self, index: usize) -> i64 {
        self.timesteps[index] as i64
    }

    /// The noise level of the coming step; after the last one, the final level.
    pub(super) fn next_sigma(&self) -> f64 {
        self.sigmas.get(self.next).or(self.sigmas.last()).copied().unwrap_or(0.0)
    }

    /// Goes on by one step and gives the index of the step to be taken now.
    pub(super) fn advance(&mut self) -> Result<usize> {
        if self.next >= self.len() {
            let message = format!("all {} steps are taken; call set_timesteps first", self.len());
            return Err(Error::argument("step", message));
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}

/// The step's noise: present exactly when it is needed.
pub(super) fn noise<'a>(needed: bool, input: &StepInput<'a>) -> Result<Option<&'a Tensor<4>>> {
    match input.noise {
        _ if !needed => Ok(None),
        None => Err(Error::argument("noise", "this step needs noise, see needs_noise")),
        noise => Ok(noise),
    }
}

/// The last few tensors, newest first.
#[derive(Debug, Default)]
pub(super) struct History {
    tensors: VecDeque<Tensor<4>>,
}

impl History {
    /// Adds a tensor, and forgets those beyond `capacity`.
    pub(super) fn push(&mut self, tensor: Tensor<4>, capacity: usize) {
        self.tensors.push_front(tensor);
        self.tensors.truncate(capacity);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.tensors.len()
    }

    /// The tensors with their coefficients, newest first.
    pub(super) fn weighted(
        &self,
        coefficients: impl IntoIterator<Item = f64>,
    ) -> impl Iterator<Item = (f64, &Tensor<4>)> {
        coefficients.into_iter().zip(&self.tensors)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.tensors.clear();
    }
}
