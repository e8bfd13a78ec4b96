package hold

const envMode = "HOLD_TEST_MODE"

func holderMain(string) int { return 1 }
