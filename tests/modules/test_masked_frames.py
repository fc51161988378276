import torch

from av_ssl.modules.masked_frames import gray_frames, replace_frames, take_frames


def test_replace_frames():
    x, mask = torch.zeros(2, 3, 2), torch.tensor([[True, False, False], [False, False, True]])
    embedding = torch.tensor([1.0, 2.0], requires_grad=True)
    y = replace_frames(x, mask, embedding)
    assert y[0].tolist() == [[1, 2], [0, 0], [0, 0]]
    assert y[1].tolist() == [[0, 0], [0, 0], [1, 2]]
    y.sum().backward()
    assert embedding.grad.tolist() == [2, 2]


def test_take_frames_of_any_clip():
    video = torch.arange(2 * 4).view(2, 1, 4, 1, 1).expand(2, 1, 4, 2, 2)
    taken = take_frames(video, torch.tensor([[0, 1, 0, 0], [7, 5, 6, 7]]))
    assert taken[:, 0, :, 0, 0].tolist() == [[0, 1, 0, 0], [7, 5, 6, 7]]


def test_gray_frames_are_zero_after_normalising():
    mask = torch.tensor([[True, False]])
    gray = gray_frames(torch.full((1, 1, 2, 2, 2), 9, dtype=torch.uint8), mask, 0.421)
    assert gray[0, 0, :, 0, 0].tolist() == [107, 9]
    assert gray_frames(torch.ones(1, 1, 2, 2, 2), mask, 0.421)[0, 0, :, 0, 0].tolist() == [0, 1]
