//! LeNet-5 learns Fashion-MNIST, with each loss and for more than one seed.
