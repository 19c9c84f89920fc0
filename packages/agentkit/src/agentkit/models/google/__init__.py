"""Google Gemini: the client, the generateContent wire, and additional body fields."""
