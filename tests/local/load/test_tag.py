from bridge.local.load import tag


def test_audio_says_which_track_it_is() -> None:
    for number in (0, 1, 59, 60, 3599):
        assert tag.heard(tag.widened(tag.spoken(number))) == number
    assert tag.heard(bytes(range(256)) * 4) == -1
    assert tag.heard(bytes(tag.FRAME_BYTES)) == -1


def test_it_does_not_matter_with_which_sample_a_frame_begins() -> None:
    assert tag.heard(tag.widened(tag.spoken(1234)[1:])) == 1234
