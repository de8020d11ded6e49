import jax
import jax.numpy as jnp
import numpy as np

from acq.samples.shifts import shift_centers, shift_images
from acq.teacher.digits_training import make_shift

SIZE, BLACK = 6, (-1.5, 2.0)
# (x, y); the last is all but gone.
SHIFT = np.int32([[0, 0], [2, -1], [-3, 3], [5, 0]])


def images():
    return np.random.default_rng(0).normal(size=(len(SHIFT), SIZE, SIZE, 2)).astype("f")


def by_hand(image, shift, black=BLACK):
    moved = np.broadcast_to(np.float32(black), image.shape).copy()
    for row in range(SIZE):
        for column in range(SIZE):
            x, y = column + shift[0], row + shift[1]
            if 0 <= x < SIZE and 0 <= y < SIZE:
                moved[y, x] = image[row, column]
    return moved


def test_images_move_by_their_shift_and_black_moves_in():
    found = shift_images(jnp.asarray(images()), jnp.asarray(SHIFT), BLACK)
    expected = [by_hand(*given) for given in zip(images(), SHIFT, strict=True)]
    np.testing.assert_array_equal(found, expected)


def test_the_gradient_goes_where_the_pixels_came_from():
    def total(x):
        return jnp.sum(shift_images(x, jnp.asarray(SHIFT), BLACK) * images())

    gradient = jax.grad(total)(jnp.zeros(images().shape))
    back = [
        by_hand(weight, -shift, black=(0, 0))
        for weight, shift in zip(images(), SHIFT, strict=True)
    ]
    np.testing.assert_array_equal(gradient, back)


def test_centres_move_with_what_is_in_them():
    place = (2 * np.arange(SIZE) + 1) / SIZE - 1  # of pixels, as `attention_center`'s
    center = jnp.asarray([[place[1], place[4]]], jnp.float32)
    found = shift_centers(center, jnp.int32([[2, -1]]), SIZE)
    np.testing.assert_allclose(found, [[place[3], place[3]]], rtol=1e-6)


def test_it_is_the_shift_that_training_digits_undergo():
    image = np.random.default_rng(1).integers(1, 255, (SIZE, SIZE, 1), np.uint8)
    moved = make_shift(2, seed=0)({"image": image, "label": 3, "draw": 7})["image"]
    candidates = np.int32([[x, y] for x in range(-2, 3) for y in range(-2, 3)])
    copies = jnp.asarray(image[None].repeat(len(candidates), 0), jnp.float32)
    found = shift_images(copies, jnp.asarray(candidates), (0.0,))
    assert (np.asarray(found) == moved).all(axis=(1, 2, 3)).sum() == 1
