//! What a scorer and a server promise. One binary, so that it is linked once.

mod client;
mod limits;
mod refusals;
mod scorer;
mod served;
mod shapes;
mod trained;
