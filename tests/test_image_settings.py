"""What the processor's environment may say."""

import pytest

from image_processor.settings import MEBIBYTE, GpsPolicy, ImageSettings, ThumbnailFormat


def test_defaults() -> None:
    settings = ImageSettings.from_environment({})
    assert settings == ImageSettings()
    assert settings == ImageSettings.from_environment(
        {"THUMBNAIL_SIZE": "", "EXTRA_THUMBNAIL_SIZES": " ", "GPS_POLICY": ""}
    )
    assert (settings.thumbnail_size, settings.gps_policy) == (200, GpsPolicy.NONE)


def test_everything() -> None:
    settings = ImageSettings.from_environment(
        {
            "THUMBNAIL_SIZE": "300",
            "EXTRA_THUMBNAIL_SIZES": "800, 300,400,800",
            "THUMBNAIL_FORMAT": "webp",
            "GPS_POLICY": "Coarse",
            "MAX_PIXELS": "5000000",
            "MAX_BYTES": "1000",
            "MAX_FRAMES": "7",
            "MEMORY_BUDGET_MB": "64",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        }
    )
    assert settings == ImageSettings(
        300, (800, 400), ThumbnailFormat.WEBP, GpsPolicy.COARSE, 5_000_000, 1000, 7, 64 * MEBIBYTE
    )
    assert settings.largest == 800


@pytest.mark.parametrize("memory", [128, 512, 1769, 10240])
def test_the_budget_leaves_room_for_the_runtime(memory: int) -> None:
    budget = ImageSettings.from_environment({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory)}).memory_budget
    assert budget >= MEBIBYTE
    assert budget < max(memory - 150, 2) * MEBIBYTE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("THUMBNAIL_SIZE", "0"),
        ("THUMBNAIL_SIZE", "1001"),
        ("THUMBNAIL_SIZE", "two hundred"),
        ("THUMBNAIL_SIZE", "-5"),
        ("THUMBNAIL_SIZE", "²"),
        ("EXTRA_THUMBNAIL_SIZES", "400,big"),
        ("EXTRA_THUMBNAIL_SIZES", "5000"),
        ("EXTRA_THUMBNAIL_SIZES", "1,2,3,4,5,6,7,8,9"),
        ("THUMBNAIL_FORMAT", "PNG"),
        ("GPS_POLICY", "some"),
        ("MAX_PIXELS", "0"),
        ("MEMORY_BUDGET_MB", "1e9"),
    ],
)
def test_what_cannot_be_meant(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        ImageSettings.from_environment({name: value})
